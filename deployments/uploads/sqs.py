"""An SQS queue that S3 sends its notifications to, directly, by way of a topic, or of EventBridge.

A message is deleted only after Prefect has accepted its event; until then it stays the queue's to keep. While Prefect
does not answer, nothing is taken: what is taken and given back counts towards the queue's redrive policy.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import TYPE_CHECKING, Any

from aiobotocore.session import get_session
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
)

from deployments.uploads.events import NotAccepted
from tasks.errors import BadInput
from tasks.jobs import public_url
from tasks.storage import explain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.uploads.arrival import Arrival
    from deployments.uploads.listener import Listener

    Message = dict[str, Any]

POLL_S = 20
"""The longest poll that SQS offers: an idle queue costs three requests a minute."""

AT_ONCE = 10
"""The most messages that SQS gives or deletes in one request."""

HELD_S = 60
"""For so long a message is nobody else's: longer than a window and a try at the server last together."""

MOST_HELD = 5_000
"""Messages that wait for Prefect's answer; more are taken when some have got it."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
"""Between tries while the queue cannot be read; the pause doubles."""

MOST_REMEMBERED = 1_000

HOPELESS = frozenset(
    {"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "AccessDenied", "InvalidAddress"}
    | {"InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException", "MissingAuthenticationToken"}
)
"""What SQS answers when it was set up wrongly: at the start, waiting would not mend it."""

log = logging.getLogger("effects")


class Queue:
    """The queue as a source of arrivals.

    Args:
        url: of the queue. Credentials, region and endpoint come from AWS's own variables and files; the region also
            from the URL itself.
        held_s: see `HELD_S`.
    """

    def __init__(self, url: str, *, held_s: int = HELD_S) -> None:
        self.url = url
        self._held_s = held_s
        self._held = asyncio.Semaphore(MOST_HELD // AT_ONCE)
        self._unreadable: dict[str, None] = {}

    async def listen(self, listener: Listener) -> None:
        """Take messages until cancelled.

        Raises:
            BadInput: there is no such queue, or it may not be read.
        """
        region = re.search(r"//sqs\.([a-z0-9-]+)\.amazonaws\.", self.url)
        try:
            client = get_session().create_client("sqs", region_name=region[1] if region else None)
            async with client as sqs, asyncio.TaskGroup() as telling:
                await self._take(sqs, listener, telling)
        except (BotoCoreError, ValueError) as error:  # there is no client: no region, an endpoint that is none
            raise BadInput(f"the queue {public_url(self.url)} cannot be read: {explain(error)}") from error

    async def _take(self, sqs: Any, listener: Listener, telling: asyncio.TaskGroup) -> None:  # noqa: ANN401 - untyped
        pause, worked = FIRST_PAUSE_S, False
        while True:
            await listener.answers()
            await self._held.acquire()
            try:
                messages = await self._receive(sqs)
            except (ClientError, BotoCoreError, OSError) as error:
                self._held.release()
                if not worked and _hopeless(error):
                    raise BadInput(f"the queue {public_url(self.url)} cannot be read: {explain(error)}") from error
                log.warning("uploads: the queue cannot be read, tried again in %.0f s: %s", pause, explain(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
                continue
            if not worked or pause > FIRST_PAUSE_S:
                log.info("uploads: taking messages from %s", public_url(self.url))
            pause, worked = FIRST_PAUSE_S, True
            telling.create_task(self._tell(sqs, listener, messages))

    async def _receive(self, sqs: Any) -> list[Message]:  # noqa: ANN401 - untyped
        answer = await sqs.receive_message(
            QueueUrl=self.url,
            MaxNumberOfMessages=AT_ONCE,
            WaitTimeSeconds=POLL_S,
            VisibilityTimeout=self._held_s,
        )
        return list(answer.get("Messages", ()))

    async def _tell(self, sqs: Any, listener: Listener, messages: Sequence[Message]) -> None:  # noqa: ANN401 - untyped
        """Tell of what the messages say, then delete them."""
        try:
            said = {message["ReceiptHandle"]: self._arrivals(listener, message) for message in messages}
            understood = {receipt: arrivals for receipt, arrivals in said.items() if arrivals is not None}
            await listener.tell(arrival for arrivals in understood.values() for arrival in arrivals)
            await self._delete(sqs, list(understood))
        except NotAccepted:
            pass  # the listener has said why; the queue gives them out again
        finally:
            self._held.release()

    def _arrivals(self, listener: Listener, message: Message) -> tuple[Arrival, ...] | None:
        """What a message tells; None where nobody can read it.

        Such a message is not ours to delete: perhaps the queue is another one's. It is told once, and left to the
        queue's redrive policy, or to its retention.
        """
        name = message["MessageId"]
        if name in self._unreadable:
            return None
        said = listener.read(message.get("Body", ""), f"the queue, message {name}")
        if said.problems and not said.arrivals and not said.ignored:
            self._unreadable[name] = None
            if len(self._unreadable) > MOST_REMEMBERED:
                self._unreadable.pop(next(iter(self._unreadable)))
            return None
        return said.arrivals

    async def _delete(self, sqs: Any, receipts: Sequence[str]) -> None:  # noqa: ANN401 - untyped
        """What is not deleted comes again, and is known again."""
        if not receipts:
            return
        entries = [{"Id": str(number), "ReceiptHandle": receipt} for number, receipt in enumerate(receipts)]
        try:
            answer = await sqs.delete_message_batch(QueueUrl=self.url, Entries=entries)
        except (ClientError, BotoCoreError, OSError) as error:
            log.warning("uploads: messages cannot be deleted, and will come again: %s", explain(error))
            return
        for failed in answer.get("Failed", ()):
            log.warning("uploads: a message cannot be deleted, and will come again: %s", failed.get("Code"))


def _hopeless(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return error.response.get("Error", {}).get("Code") in HOPELESS
    return isinstance(error, NoCredentialsError | PartialCredentialsError | ParamValidationError)

"""The listener: arrivals in from its sources, events out to Prefect.

It is a bell, not a book: an event only wakes a flow, which reads the inbox itself. So a notification may come twice,
and what a dead listener missed is found by the sweep.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from deployments.uploads.events import NotAccepted, event_of, require_server, send
from deployments.uploads.notification import Notification, read_notification
from deployments.uploads.place import Place
from deployments.uploads.window import LONGEST_S, QUIET_S, Window
from tasks.errors import EffectsError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from uuid import UUID

    from deployments.uploads.arrival import Arrival
    from deployments.uploads.events import Event
    from deployments.uploads.window import Group

MOST_PENDING = 10_000
"""Arrivals that are kept in memory until the server has accepted their event."""

MOST_REMEMBERED = 50_000
"""Arrivals that were told already, and whose repeats wake nobody. Prefect itself forgets after 1,000, or 5 minutes."""

MOST_ELSEWHERE = 100
"""Other buckets that are told of, once each."""

EVENTS_AT_ONCE = 10
"""In one request to the server: a few megabytes at the very most."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Between tries to hand an event over; the pause doubles."""

log = logging.getLogger("effects")


@dataclass
class Counters:
    """What came and what became of it, since the listener started.

    Attributes:
        arrivals: files that were put into the inbox.
        repeated: arrivals that were known already.
        ignored: notifications that concern no job: other places, removals, hidden files, the store's own tests.
        malformed: notifications that nobody can read.
        refused: requests over HTTP without the secret.
        events: accepted by Prefect.
        not_accepted: tries to hand events over that failed.
    """

    arrivals: int = 0
    repeated: int = 0
    ignored: int = 0
    malformed: int = 0
    refused: int = 0
    events: int = 0
    not_accepted: int = 0


class Source(Protocol):
    """What arrivals are heard of by: a folder, a queue, an HTTP endpoint."""

    async def listen(self, listener: Listener) -> None:
        """Tell the listener of arrivals until cancelled.

        Raises:
            BadInput: it cannot work at all as it was set up.
        """


async def listen(
    inbox: str, sources: Sequence[Source], *, quiet_s: float = QUIET_S, longest_s: float = LONGEST_S
) -> None:
    """Turn uploads to an inbox into Prefect events, until cancelled; it ends within a second then.

    Args:
        inbox: any fsspec URL or local path.
        sources: what tells of files that arrive in it.
        quiet_s: arrivals are told when no other came for so long.
        longest_s: and at the latest so long after the first.

    Raises:
        BadInput: the inbox, a source or Prefect's settings do not fit.
    """
    require_server()
    listener = Listener(Place.of(inbox), Window(quiet_s, longest_s))
    try:
        async with asyncio.TaskGroup() as running:
            running.create_task(listener.run())
            for source in sources:
                running.create_task(source.listen(listener))
    except ExceptionGroup as troubles:
        raise _plain(troubles) from None


def _plain(trouble: Exception) -> Exception:
    """The first of our own errors in a group of groups; else the group as it is."""
    inside: Exception | None = trouble
    while isinstance(inside, ExceptionGroup):
        ours = inside.subgroup(EffectsError)
        inside = ours.exceptions[0] if ours else None
    return inside or trouble


class Listener:
    """What all sources tell of arrivals.

    Args:
        place: the inbox.
        window: groups what comes close together.
        send: hands events to Prefect; raises `NotAccepted`.
    """

    def __init__(
        self, place: Place, window: Window, *, send: Callable[[Sequence[Event]], Awaitable[None]] = send
    ) -> None:
        self.place = place
        self.counters = Counters()
        self._window, self._send = window, send
        self._pending: dict[UUID, asyncio.Future[bool]] = {}
        self._told: OrderedDict[UUID, None] = OrderedDict()
        self._came, self._answering = asyncio.Event(), asyncio.Event()
        self._answering.set()
        self._trouble = ""
        self._elsewhere: set[str] = set()

    @property
    def pending(self) -> int:
        """Arrivals that Prefect has not been told of yet."""
        return len(self._pending)

    @property
    def answering(self) -> bool:
        """Whether Prefect accepted the latest event."""
        return self._answering.is_set()

    async def answers(self) -> None:
        """Return at once, or when Prefect accepts events again."""
        await self._answering.wait()

    def read(self, body: bytes | str, origin: str) -> Notification:
        """Read a notification, whatever it is; count and log what is wrong with it."""
        notification = read_notification(body)
        for problem in notification.problems:
            log.warning("uploads: a malformed notification from %s: %s", origin, problem)
        if notification.confirm:
            log.warning("uploads: a topic asks whether it may send here; if so, open once: %s", notification.confirm)
        self.counters.malformed += len(notification.problems)
        self.counters.ignored += notification.ignored
        return notification

    async def tell(self, arrivals: Iterable[Arrival]) -> None:
        """Tell of arrivals; returns when Prefect has accepted an event for each, at once where there is nothing new.

        Raises:
            NotAccepted: it has not, at least not yet. They are kept and tried again all the same; telling of them
                again waits for the next try.
        """
        waiting = [answer for arrival in arrivals if (answer := self._take(arrival))]
        if not waiting:
            return
        if self.answering:
            await asyncio.wait(waiting)
        if not all(answer.done() and answer.result() for answer in waiting):
            raise NotAccepted(self._trouble or "the Prefect server refuses the event")

    async def run(self) -> None:
        """Close windows and send events, until cancelled."""
        try:
            while True:
                await self._window_to_close()
                groups = self._window.close()
                for start in range(0, len(groups), EVENTS_AT_ONCE):
                    await self._deliver(groups[start : start + EVENTS_AT_ONCE])
        finally:
            self._not_yet("the listener was stopped")

    def _take(self, arrival: Arrival) -> asyncio.Future[bool] | None:
        """The answer to wait for; None where there is nothing to tell."""
        folder = self.place.folder_of(arrival.bucket, arrival.key)
        if folder is None:
            self.counters.ignored += 1
            self._wonder_at(arrival.bucket)
            return None
        if arrival.id in self._told:
            self.counters.repeated += 1
            return None
        if arrival.id in self._pending:
            self.counters.repeated += 1
            return self._pending[arrival.id]
        if self.pending >= MOST_PENDING:
            raise NotAccepted(f"{self.pending} new files wait for the Prefect server: there is no room for more")
        self.counters.arrivals += 1
        self._window.add(folder, arrival, asyncio.get_running_loop().time())
        self._came.set()
        answer = self._pending[arrival.id] = asyncio.get_running_loop().create_future()
        return answer

    def _wonder_at(self, bucket: str) -> None:
        """Say once that another bucket's notifications come here: perhaps the inbox is not the one that was meant."""
        if bucket == self.place.bucket or bucket in self._elsewhere or len(self._elsewhere) >= MOST_ELSEWHERE:
            return
        self._elsewhere.add(bucket)
        log.warning("uploads: what arrives in %r is passed over: the inbox is %s", bucket, self.place.url)

    async def _window_to_close(self) -> None:
        while True:
            self._came.clear()
            closes_at = self._window.closes_at()
            left = None if closes_at is None else closes_at - asyncio.get_running_loop().time()
            if left is not None and left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    await self._came.wait()
            except TimeoutError:
                return

    async def _deliver(self, groups: Sequence[Group]) -> None:
        """Send until accepted: always the same groups, so that what arrived without an answer is known again."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                await self._send([event_of(group, self.place) for group in groups])
            except NotAccepted as error:
                self.counters.not_accepted += 1
                if error.lasting:
                    return await self._refused(groups, error)
                if error.reason != self._trouble:
                    log.warning("uploads: %s; %d new wait → %s", error, self.pending, error.next_move)
                self._not_yet(error.reason)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
            else:
                return self._accepted(groups)

    async def _refused(self, groups: Sequence[Group], error: NotAccepted) -> None:
        """One event that does not fit must not hold up the others: each is sent alone, and that one given up.

        Who told of it may tell again; else the sweep finds what arrived.
        """
        if len(groups) > 1:
            for group in groups:
                await self._deliver([group])
            return
        [group] = groups
        self._trouble = ""
        self._answering.set()
        log.error("uploads: %s: the event about %s is given up", error, group.title)
        for arrival in group.arrivals:
            self._pending.pop(arrival.id).set_result(False)

    def _accepted(self, groups: Sequence[Group]) -> None:
        if self._trouble:
            log.info("uploads: the Prefect server accepts events again")
        self._trouble = ""
        self._answering.set()
        self.counters.events += len(groups)
        for group in groups:
            log.info("uploads: told Prefect of %s: %d new", group.title, group.files)
            for arrival in group.arrivals:
                self._told[arrival.id] = None
                self._pending.pop(arrival.id).set_result(True)
        while len(self._told) > MOST_REMEMBERED:
            self._told.popitem(last=False)

    def _not_yet(self, why: str) -> None:
        """Answer everyone who waits; who asks again waits for the next try."""
        self._trouble = why
        self._answering.clear()
        for arrival, answer in self._pending.items():
            answer.set_result(False)
            self._pending[arrival] = asyncio.get_running_loop().create_future()

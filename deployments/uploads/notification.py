"""What a message from a store says, in whatever shape: all come down to arrivals.

Whatever arrives is read without an error: what cannot be read is a problem to be told, and the rest still counts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from deployments.uploads.shapes import BridgeEvent, CloudGridEvent, GridEvent, PubSubPush, S3Record, TopicMessage

if TYPE_CHECKING:
    from deployments.uploads.arrival import Arrival

LONGEST_TOLD, LONGEST_ADDRESS = 200, 2_000

KNOWN_BY: dict[str, type[BridgeEvent | PubSubPush | GridEvent]] = {
    "detail-type": BridgeEvent,
    "specversion": CloudGridEvent,
    "eventType": GridEvent,
    "message": PubSubPush,
}
"""The one field by which each shape is known from all others."""


@dataclass(frozen=True)
class Notification:
    """What one message says.

    Attributes:
        arrivals: files that were put into a store.
        ignored: how many things else it tells, and were understood: removals, tests.
        problems: one line on each part that cannot be read.
        handshake: what Azure Event Grid wants to hear back before it sends anything.
        confirm: the address that a person opens to allow an SNS topic to send here, as it may stand in a log.
    """

    arrivals: tuple[Arrival, ...] = ()
    ignored: int = 0
    problems: tuple[str, ...] = ()
    handshake: str | None = None
    confirm: str = ""


def read_notification(body: bytes | str) -> Notification:
    """Read a message; never raises."""
    return _read_text(body, in_topic=False)


def _read_text(body: bytes | str, *, in_topic: bool) -> Notification:
    try:
        said = json.loads(body)
        parts = [_read(part, in_topic=in_topic) for part in (said if isinstance(said, list) else [said])]
    except (ValueError, RecursionError) as error:
        return Notification(problems=(_told(f"it is no JSON: {error}"),))
    return _together(parts)


def _together(parts: list[Notification]) -> Notification:
    if not parts:
        return Notification(problems=("it tells of nothing",))
    return Notification(
        tuple(arrival for part in parts for arrival in part.arrivals),
        sum(part.ignored for part in parts),
        tuple(problem for part in parts for problem in part.problems),
        next((part.handshake for part in parts if part.handshake), None),
        next((part.confirm for part in parts if part.confirm), ""),
    )


def _read(said: Any, *, in_topic: bool) -> Notification:  # noqa: ANN401 - anything at all
    if not isinstance(said, dict):
        return Notification(problems=(_told(f"a {type(said).__name__} is no notification"),))
    if said.get("Event") == "s3:TestEvent":  # sent once, when a bucket learns where to send its notifications
        return Notification(ignored=1)
    try:
        if isinstance(said.get("Records"), list):
            return _together([_read_record(record) for record in said["Records"]])
        if "Type" in said and not in_topic:
            return _read_topic(TopicMessage.model_validate(said))
        for field, shape in KNOWN_BY.items():
            if field in said:
                return _read_event(shape.model_validate(said))
    except ValueError as error:
        return Notification(problems=(_why(error),))
    return Notification(problems=(_told(f"it has no shape that is known: {', '.join(map(repr, said)) or 'empty'}"),))


def _read_record(record: object) -> Notification:
    try:
        arrival = S3Record.model_validate(record).arrival()
    except ValueError as error:
        return Notification(problems=(_why(error),))
    return Notification((arrival,)) if arrival else Notification(ignored=1)


def _read_topic(said: TopicMessage) -> Notification:
    if said.kind == "Notification":
        return _read_text(said.message, in_topic=True)
    return Notification(ignored=1, confirm=_told(said.subscribe_url or "", LONGEST_ADDRESS))


def _read_event(event: BridgeEvent | PubSubPush | GridEvent) -> Notification:
    if isinstance(event, GridEvent) and (code := event.handshake()):
        return Notification(ignored=1, handshake=code)
    arrival = event.arrival()
    return Notification((arrival,)) if arrival else Notification(ignored=1)


def _why(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return _told(str(error))
    issue = error.errors(include_url=False, include_input=False)[0]
    return _told(f"{'.'.join(map(str, issue['loc'])) or 'it'}: {issue['msg']}")


def _told(line: str, longest: int = LONGEST_TOLD) -> str:
    """As it may stand in a log: one line of printable ASCII, for anybody may have written what it quotes."""
    text = line.encode("ascii", "backslashreplace").decode()
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return text if len(text) <= longest else f"{text[: longest - 3]}..."

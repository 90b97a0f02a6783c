"""What the provider's answers say, in every shape that was documented or recorded. Pure: bytes in, words out.

Read leniently; decide on status codes and machine words, never on message texts.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import httpx

from tasks.errors import ProviderBusy, SubmitUnknown
from tasks.jobs import public_url

if TYPE_CHECKING:
    from collections.abc import Mapping

PENDING = frozenset({"queued", "generating", "waiting", "active"})
"""Still under way. The first two are documented, the others were seen in examples."""

FAILED = frozenset({"error", "failed", "canceled", "cancelled", "expired"})
"""Only `error` is documented. Any other word is a success if it comes with a video, and under way if not."""

INPUT_FAULTS = frozenset({"face_detection_error", "image_too_large", "content_policy_violation"})
"""Error types that the same photos meet again: another attempt is pointless."""

RETRY_AFTER_CAP_S = 120.0
LINE_LENGTH = 400


@dataclass(frozen=True)
class Submission:
    """An accepted submission. `cost_usd` is what it holds, or None where the answer did not say."""

    id: str
    status: str
    cost_usd: float | None


@dataclass(frozen=True)
class Failed:
    """Why a generation failed: a line for a person, the provider's stable word, and whether the input is at fault."""

    reason: str
    kind: str
    input_fault: bool


@dataclass(frozen=True)
class Look:
    """One look at a generation: at most one of `video_url` and `failed` is set, neither while it is under way."""

    status: str
    video_url: str | None = None
    size: int | None = None
    failed: Failed | None = None


@dataclass(frozen=True)
class LogRow:
    """A row of the provider's log; `generation_id` is None where the request was not accepted, or is not yet."""

    client_request_id: str | None
    generation_id: str | None
    cost_usd: float | None


def read_look(body: Mapping[str, Any]) -> Look:
    """What a poll's answer says, in any of the shapes that were recorded."""
    status = str(body.get("status") or "unknown")
    url, size = _video(body.get("video"))
    if status in FAILED:
        return Look(status, failed=_read_failure(body.get("error"), status))
    if status in PENDING:
        return Look(status)
    return Look(status, video_url=url, size=size)


def retry_after_s(headers: Mapping[str, str], *, wall_clock: float | None = None) -> float | None:
    """Seconds that a Retry-After header asks for (a number or an HTTP-date), capped; None without one."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if re.fullmatch(r"\d+(\.\d+)?", value):
        return min(float(value), RETRY_AFTER_CAP_S)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    wait = at - datetime.fromtimestamp(time.time() if wall_clock is None else wall_clock, UTC)
    return min(max(wait.total_seconds(), 0.0), RETRY_AFTER_CAP_S)


def read_submission(response: httpx.Response) -> Submission:
    """The id, status and cost of an accepted submission.

    Raises:
        SubmitUnknown: where no id can be found in it.
    """
    body = as_object(response) or {}
    named = (as_id(body.get("id")), as_id(body.get("generation_id")), as_id(response.headers.get("x-inference-id")))
    generation_id = next(filter(None, named), None)
    if not generation_id:
        raise SubmitUnknown(f"the submission was answered without an id: {summary(response)}")
    meta = body.get("meta")
    usage = meta.get("usage") if isinstance(meta, dict) else None
    return Submission(generation_id, str(body.get("status") or "queued"), as_usd(usage, "usd_spent"))


def _video(value: object) -> tuple[str | None, int | None]:
    if isinstance(value, list):
        value = next(iter(value), None)
    if isinstance(value, str):
        return value or None, None
    if isinstance(value, dict):
        size = value.get("file_size")
        return as_text(value.get("url")), size if isinstance(size, int) and size > 0 else None
    return None, None


def _read_failure(error: object, status: str) -> Failed:
    if isinstance(error, str) and error.strip():
        return Failed(one_line(error), "unspecified", input_fault=False)
    if isinstance(error, dict):
        detail = error.get("detail")
        if isinstance(detail, str) and detail.strip():
            return Failed(one_line(detail), "unspecified", input_fault=False)
        rows = [row for row in detail if isinstance(row, dict)] if isinstance(detail, list) else []
        if rows:
            kinds = [str(row.get("type") or "unspecified") for row in rows]
            reason = "; ".join(one_line(row.get("msg") or kind) for row, kind in zip(rows, kinds, strict=True))
            return Failed(reason, kinds[0], input_fault=any(kind in INPUT_FAULTS for kind in kinds))
        kind = as_text(error.get("type")) or as_text(error.get("name")) or "unspecified"
        return Failed(one_line(error.get("message") or kind), kind, input_fault=kind in INPUT_FAULTS)
    return Failed(f"the provider ended it as '{status}' and gave no reason", "unspecified", input_fault=False)


def as_object(response: httpx.Response) -> dict[str, Any] | None:
    """The body where it is a JSON object, else None."""
    try:
        body = response.json()
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def log_rows(response: httpx.Response) -> list[dict[str, Any]]:
    """The rows of a page of the log.

    Raises:
        ProviderBusy: where the page cannot be read: it must not look like an empty one.
    """
    try:
        body = response.json()
    except (ValueError, RecursionError):
        raise ProviderBusy(f"the provider's log cannot be read: {summary(response)}") from None
    rows = body.get("data", body.get("logs")) if isinstance(body, dict) else body
    if not response.is_success or not isinstance(rows, list):
        raise ProviderBusy(f"the provider's log cannot be read: {summary(response)}")
    return [row for row in rows if isinstance(row, dict)]


def refusal_kind(response: httpx.Response) -> str | None:
    """The machine word in an error envelope (`error.data.kind`), such as `err_insufficent_credits`."""
    error = (as_object(response) or {}).get("error")
    data = error.get("data") if isinstance(error, dict) else None
    return as_text(data.get("kind")) if isinstance(data, dict) else None


def summary(response: httpx.Response) -> str:
    """`HTTP 400: image_url: Invalid url`: the status, the message, and every issue that the answer lists."""
    head = f"HTTP {response.status_code}"
    try:
        body = as_object(response)
    except httpx.StreamError:  # a streamed answer that was not read
        return head
    if body is None:
        return head
    error = body.get("error")
    error = error if isinstance(error, dict) else {"message": error}
    data = error.get("data")
    issues = [
        f"{_path(issue.get('path'))}{issue.get('message') or issue.get('code')}"
        for issue in (data if isinstance(data, list) else ())
        if isinstance(issue, dict)
    ]
    text = (
        "; ".join(issues) or as_text(body.get("message")) or as_text(error.get("message")) or as_text(body.get("title"))
    )
    return f"{head}: {one_line(text)}" if text else head


def _path(value: object) -> str:
    text = ".".join(str(part) for part in value) if isinstance(value, list) else str(value or "")
    return f"{text}: " if text else ""


def as_text(value: object) -> str | None:
    """A text that is not empty, else None."""
    return value if isinstance(value, str) and value else None


def as_id(value: object) -> str | None:
    """An id as text, else None; ids are opaque, and a number is one too."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else as_text(value)


def as_number(value: object) -> float | None:
    """A finite number, else None."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def as_usd(holder: object, name: str) -> float | None:
    """An amount in a usage or cost object, else None."""
    return as_number(holder.get(name)) if isinstance(holder, dict) else None


def one_line(value: object) -> str:
    """Text from outside as one bounded line; links in it lose their signatures."""
    # A lone surrogate (an emoji that was cut in half) could not be written down anywhere.
    text = str(value).encode("utf-8", "replace").decode()
    text = " ".join(text.split()) or type(value).__name__
    text = re.sub(r"[a-z][a-z0-9+.-]*://\S+|data:\S+", lambda match: public_url(match.group()), text)
    return text if len(text) <= LINE_LENGTH else text[: LINE_LENGTH - 1] + "…"

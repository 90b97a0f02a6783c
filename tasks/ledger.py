"""The ledger: pay once, lose nothing. It lies in the target itself; there is no database to run, none to lose.

    <effect>/<job_id>/metadata.json               written last: its presence means done
    <effect>/<job_id>/video.mp4, poster.jpg
    <effect>/<job_id>/attempts/N/claim.json       the right to submit attempt N: created exclusively
    <effect>/<job_id>/attempts/N/generation.json  the provider's id: from here on the job can be resumed
    <effect>/<job_id>/attempts/N/failure.json     the attempt ended without a video, and why
    _open/<job_id>.json                           exists while the job is unfinished

One attempt, from the files that exist:

    nothing ──claim──▶ claimed ──answer──▶ generating ──video──▶ done (metadata.json)
                         │                     │
                         ├──never sent────▶ failed ◀──provider's error
                         └──answer lost───▶ claimed, and its outcome is unknown: looked up, never sent again

The next attempt opens only behind a failure. A money path: every step here has its crash in `tests/crash`.
"""

from __future__ import annotations

import os
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.errors import StorageError
from tasks.jobs import Generation, Record, Request, now

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tasks.storage import Storage

CLAIM_VALID_S = 60.0
"""A claimant sends only while its claim is younger than this, on its own monotonic clock."""

RESUBMIT_AFTER_S = 15 * 60.0
"""A person may allow a resubmission only when the claim is older than this: the margin covers a request that was
already on its way when its claim ran out, and clocks that disagree."""

OPEN = "_open"

M = TypeVar("M", bound=BaseModel)


class Failure(BaseModel):
    """`failure.json`: how an attempt ended without a video.

    Attributes:
        kind: `never_sent`; `refused` (by the provider, before anything was accepted); `account` (no money, bad key,
            model withdrawn); `abandoned` (unknown outcome, and a person allowed another submission); or the
            provider's own word for a failed generation.
        again: whether another attempt is worth it.
        counts: against the allowed number of attempts; what never reached the provider does not, nor what a person
            allowed to be sent again.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    reason: str
    again: bool
    counts: bool
    generation_id: str | None = None
    at: datetime


class ClaimDocument(BaseModel):
    """`claim.json`. The claimant is a random word: whoever reads its own word back holds the claim."""

    model_config = ConfigDict(frozen=True)

    claimant: str
    at: datetime
    client_request_id: str


@dataclass(frozen=True)
class Claim:
    """The right to send one attempt, held by this process for `CLAIM_VALID_S` seconds."""

    request: Request
    attempt: int
    made_at: float
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    def left_s(self) -> float:
        """Seconds for which it may still be used; 0 or less means: do not send."""
        return CLAIM_VALID_S - (self.clock() - self.made_at)


Stage = Literal["new", "claimed", "generating", "failed"]


@dataclass(frozen=True)
class Standing:
    """Where the latest attempt of a job stands.

    Attributes:
        attempt: the latest attempt, 0 where there is none.
        stage: `new` means that the next attempt has no claim yet and none came before.
        claimed_at: when the latest attempt was claimed, where it is no further than that; None where nobody can tell.
        tries: attempts that count against the allowed number, the latest included.
    """

    attempt: int = 0
    stage: Stage = "new"
    claimed_at: datetime | None = None
    generation: Generation | None = None
    failure: Failure | None = None
    tries: int = 0


class Ledger:
    """What is known of every job under one target."""

    def __init__(self, storage: Storage, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.storage = storage
        self._clock = clock

    @staticmethod
    def folder(request: Request | Record) -> str:
        """The job's folder in the target."""
        return f"{request.effect}/{request.job_id}"

    async def record(self, request: Request) -> Record | None:
        """The finished job's metadata, or None while there is none."""
        return await self._load(Record, f"{self.folder(request)}/metadata.json")

    async def open(self, request: Request) -> None:
        """Note that the job was begun, before anything else is written for it."""
        path = f"{OPEN}/{request.job_id}.json"
        if await self.storage.size(path) is None:
            await self.storage.write(path, _json(request.for_ledger()))

    async def open_requests(self) -> list[Request]:
        """Every unfinished job; the cost grows with what is unfinished, not with the archive."""
        loaded = [await self._load(Request, path) for path in await self.storage.list(OPEN) if path.endswith(".json")]
        return [request for request in loaded if request is not None]

    async def standing(self, request: Request) -> Standing:
        """Where the latest attempt stands, by the files that exist."""
        base = f"{self.folder(request)}/attempts/"
        names = {path.removeprefix(base) for path in await self.storage.list(base.rstrip("/"))}
        numbers = {int(name.split("/")[0]) for name in names if name.split("/")[0].isdigit()}
        if not numbers:
            return Standing()
        latest = max(numbers)
        failures = {
            number: await self._load(Failure, f"{base}{number}/failure.json")
            for number in sorted(numbers)
            if f"{number}/failure.json" in names
        }
        tries = len(numbers) - sum(1 for failure in failures.values() if failure and not failure.counts)
        if failure := failures.get(latest):
            return Standing(latest, "failed", None, None, failure, tries)
        if generation := await self._load(Generation, f"{base}{latest}/generation.json"):
            return Standing(latest, "generating", None, generation, None, tries)
        return Standing(latest, "claimed", await self._claimed_at(f"{base}{latest}/claim.json"), None, None, tries)

    async def claim(self, request: Request, attempt: int) -> Claim | None:
        """Take the right to submit an attempt; None where somebody else holds it.

        Raises:
            StorageError: where it is not certain that the claim was made. Then nothing may be sent.
        """
        made_at = self._clock()  # before the write: a claim may only ever look older than it is
        claimant = uuid.uuid4().hex
        path = f"{self._attempt(request, attempt)}/claim.json"
        document = ClaimDocument(claimant=claimant, at=now(), client_request_id=request.client_request_id(attempt))
        try:
            won = await self.storage.create(path, _json(document))
        except StorageError:
            # The answer may have been lost, not the write: the file says who holds the claim.
            if not await self._is_mine(path, claimant):
                raise
            won = True
        # A store's client may have sent a lost write again and met its own file.
        if not won and not await self._is_mine(path, claimant):
            return None
        return Claim(request, attempt, made_at, self._clock)

    async def record_generation(self, generation: Generation) -> None:
        """Keep the provider's id: from here on the job can always be resumed."""
        path = f"{self._attempt(generation.request, generation.attempt)}/generation.json"
        kept = generation.model_copy(update={"request": generation.request.for_ledger()})
        await self.storage.write(path, _json(kept))

    async def record_failure(self, request: Request, attempt: int, failure: Failure) -> None:
        """Keep how the attempt ended."""
        await self.storage.write(f"{self._attempt(request, attempt)}/failure.json", _json(failure))

    async def store_file(self, request: Request, name: str, local: Path) -> None:
        """Store a result beside the metadata that will follow, and read it back in size.

        Raises:
            StorageError: when what is stored is not as long as what was sent.
        """
        path = f"{self.folder(request)}/{name}"
        await self.storage.upload(path, local)
        stored, expected = await self.storage.size(path), os.path.getsize(local)  # noqa: PTH202, ASYNC240 - one stat call
        if stored != expected:
            raise StorageError(f"{self.storage.url_of(path)} has {stored} bytes after {expected} were written")

    async def record_video(self, request: Request, record: Record) -> None:
        """Write `metadata.json`, after everything that it speaks of has been stored: the job is done."""
        await self.storage.write(f"{self.folder(request)}/metadata.json", _json(record))

    async def close(self, request: Request) -> None:
        """Take the job off the list of what is open."""
        await self.storage.delete(f"{OPEN}/{request.job_id}.json")

    def url_of(self, request: Request | Record, name: str) -> str:
        """The URL of one of a job's files."""
        return self.storage.url_of(f"{self.folder(request)}/{name}")

    def _attempt(self, request: Request, attempt: int) -> str:
        return f"{self.folder(request)}/attempts/{attempt}"

    async def _claimed_at(self, path: str) -> datetime | None:
        """The later of what the claimant's clock and the store's say: a claim must never look older than it is."""
        claim, stored_at = await self._load(ClaimDocument, path), await self.storage.modified(path)
        times = [at for at in (claim.at if claim else None, stored_at) if at]
        return max(times, default=None)

    async def _is_mine(self, path: str, claimant: str) -> bool:
        document = await self._load(ClaimDocument, path)
        return document is not None and document.claimant == claimant

    async def _load(self, kind: type[M], path: str) -> M | None:
        """A document, or None where it is absent or was cut short: what cannot be read was never said."""
        data = await self.storage.read(path)
        if data is None:
            return None
        try:
            return kind.model_validate_json(data)
        except ValidationError:
            return None


def _json(document: BaseModel) -> bytes:
    return document.model_dump_json(indent=2).encode() + b"\n"

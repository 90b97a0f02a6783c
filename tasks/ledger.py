"""The ledger: pay once, lose nothing. It lies in the target itself; there is no database to run, none to lose.

    <effect>/<job_id>/metadata.json               written last: its presence means done
    <effect>/<job_id>/video.mp4, poster.jpg
    <effect>/<job_id>/attempts/N/claim.json       the right to submit attempt N: created exclusively
    <effect>/<job_id>/attempts/N/generation.json  the provider's id: from here on the job can be resumed
    <effect>/<job_id>/attempts/N/failure.json     the attempt ended without a video, and why
    <effect>/<job_id>/attempts/chosen.json        the attempt whose video is the job's: created exclusively
    _open/<job_id>.json                           exists while the job is unfinished

One attempt, from the files that exist:

    nothing ──claim──▶ claimed ──answer──▶ generating ──video──▶ done (metadata.json)
                         │                     │
                         ├──never sent────▶ failed ◀──provider's error
                         └──answer lost───▶ claimed, and its outcome is unknown: looked up, never sent again

The next attempt opens only behind a failure. A money path: every step here has its crash in `tests/crash`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

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

KEEP_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""What is worth money is written through a target that is away for a moment."""

OPEN = "_open"
CHOSEN = "chosen.json"

log = logging.getLogger("effects")

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
        delivery: of a refusal: how the photos were to reach the provider.
    """

    model_config = ConfigDict(frozen=True)

    kind: str
    reason: str
    again: bool
    counts: bool
    generation_id: str | None = None
    delivery: str = ""
    at: datetime

    @classmethod
    def never_sent(cls, reason: str) -> Failure:
        """A claim that was given back: nothing was sent under it, and nothing will be."""
        return cls(kind="never_sent", reason=reason, again=True, counts=False, at=now())


class Chosen(BaseModel):
    """`chosen.json`: the attempt whose video becomes the job's."""

    model_config = ConfigDict(frozen=True)

    attempt: int


class ClaimDocument(BaseModel):
    """`claim.json`. The claimant is a random word, by which a process knows its own claim again."""

    model_config = ConfigDict(frozen=True)

    claimant: str
    at: AwareDatetime
    client_request_id: str


@dataclass(frozen=True)
class Claim:
    """The right to send one attempt, held by this process for `CLAIM_VALID_S` seconds."""

    request: Request
    attempt: int
    made_at: float
    clock: Callable[[], float] = field(repr=False)

    def left_s(self) -> float:
        """Seconds for which it may still be used; 0 or less means: do not send."""
        return CLAIM_VALID_S - (self.clock() - self.made_at)


def uptime() -> float:
    """Seconds that never stand still: the monotonic clock, which on Linux must count a sleeping machine's time too."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


Stage = Literal["new", "claimed", "generating", "failed"]


@dataclass(frozen=True)
class Standing:
    """Where the latest attempt of a job stands.

    Attributes:
        attempt: the latest attempt, 0 where there is none.
        stage: `new` means that the next attempt has no claim yet and none came before.
        claimed_at: when the latest attempt was claimed at the latest, where it is no further than that; None where
            nobody can tell.
        claimed_from: the same at the earliest.
        tries: attempts that count against the allowed number, the latest included.
    """

    attempt: int = 0
    stage: Stage = "new"
    claimed_at: datetime | None = None
    claimed_from: datetime | None = None
    generation: Generation | None = None
    failure: Failure | None = None
    tries: int = 0


class Ledger:
    """What is known of every job under one target."""

    def __init__(self, storage: Storage, *, clock: Callable[[], float] = uptime) -> None:
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
        if await self._load(Request, path) is None:
            await self.storage.write(path, _json(request.for_ledger()))

    async def open_requests(self) -> list[Request]:
        """Every unfinished job; the cost grows with what is unfinished, not with the archive."""
        found = []
        for path in await self.storage.list(OPEN):
            request = await self._load(Request, path) if path.endswith(".json") else None
            if request:
                found.append(request)
            else:
                log.warning("%s cannot be read: ask for that job again to have it resumed", self.storage.url_of(path))
        return found

    async def standing(self, request: Request) -> Standing:
        """Where the latest attempt stands, by the files that exist."""
        base = f"{self.folder(request)}/attempts/"
        names = {path.removeprefix(base) for path in await self.storage.list(base.rstrip("/"))}
        numbers = {int(name.split("/")[0]) for name in names if name.split("/")[0].isdigit()}
        if not numbers:
            return Standing()
        latest = max(numbers)
        if CHOSEN in names and (chosen := await self._load(Chosen, f"{base}{CHOSEN}")):
            latest = chosen.attempt  # whatever else was allowed: this attempt's video is the job's
        failures = {
            number: await self._load(Failure, f"{base}{number}/failure.json")
            for number in sorted(numbers)
            if f"{number}/failure.json" in names
        }
        tries = len(numbers) - sum(1 for failure in failures.values() if failure and not failure.counts)
        failure = failures.get(latest)
        if failure and failure.kind != "abandoned":
            return Standing(latest, "failed", failure=failure, tries=tries)
        # The answer to an abandoned attempt may have come late: better that video than another one to pay for.
        if generation := await self._load(Generation, f"{base}{latest}/generation.json"):
            return Standing(latest, "generating", generation=generation, tries=tries)
        if failure:
            return Standing(latest, "failed", failure=failure, tries=tries)
        times = await self._claim_times(f"{base}{latest}/claim.json")
        return Standing(latest, "claimed", max(times, default=None), min(times, default=None), tries=tries)

    async def claim(self, request: Request, attempt: int) -> Claim | None:
        """Take the right to submit an attempt; None where somebody else holds it.

        Raises:
            StorageError: where it is not certain that the claim was made, or that it keeps others out. Then nothing
                may be sent.
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
        try:
            await self._check_exclusive(path, document)
        except StorageError as error:
            await self.record_failure(request, attempt, Failure.never_sent(error.reason))
            raise
        return Claim(request, attempt, made_at, self._clock)

    async def record_generation(self, generation: Generation) -> None:
        """Keep the provider's id: from here on the job can always be resumed."""
        path = f"{self._attempt(generation.request, generation.attempt)}/generation.json"
        kept = generation.model_copy(update={"request": generation.request.for_ledger()})
        await self._keep(path, kept)

    async def record_failure(self, request: Request, attempt: int, failure: Failure) -> None:
        """Keep how the attempt ended."""
        await self._keep(f"{self._attempt(request, attempt)}/failure.json", failure)

    async def choose(self, request: Request, attempt: int) -> int:
        """Decide, once and for ever, which attempt's video is the job's, and say which; the first to ask is chosen.

        Two attempts of a job can both come to a video only where a person allowed the second; then their files must
        not mix.
        """
        path = f"{self.folder(request)}/attempts/{CHOSEN}"
        if await self.storage.create(path, _json(Chosen(attempt=attempt))):
            return attempt
        chosen = await self._load(Chosen, path)
        return chosen.attempt if chosen else attempt

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

    async def _keep(self, path: str, document: BaseModel) -> None:
        for pause in KEEP_PAUSES_S:
            try:
                return await self.storage.write(path, _json(document))
            except StorageError:
                await asyncio.sleep(pause)
        return await self.storage.write(path, _json(document))

    def _attempt(self, request: Request, attempt: int) -> str:
        return f"{self.folder(request)}/attempts/{attempt}"

    async def _claim_times(self, path: str) -> list[datetime]:
        """When a claim was made, by the claimant's clock and by the store's: neither is to be trusted alone."""
        claim, stored_at = await self._load(ClaimDocument, path), await self.storage.modified(path)
        return [at for at in (claim.at if claim else None, stored_at) if at]

    async def _check_exclusive(self, path: str, document: ClaimDocument) -> None:
        """Some stores take the condition and ignore it; then the same right would go to everyone who asks."""
        if await self.storage.create(path, _json(document)) or not await self._is_mine(path, document.claimant):
            raise StorageError(
                f"{self.storage.url} does not keep a second writer out: jobs could be paid for twice", lasting=True
            )

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

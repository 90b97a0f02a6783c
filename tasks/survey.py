"""The survey: the whole ledger at a glance, from one listing of the target.

Which files exist says almost everything. Documents are read only of jobs that have no `metadata.json`: besides the
listing, the cost grows with what is unfinished. Whatever else lies in the target is passed over.
"""

from __future__ import annotations

import asyncio
import re
from bisect import bisect_left
from dataclasses import dataclass
from datetime import datetime  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.errors import GenerationFailed, GenerationTimeout, JobState, Rejected, SubmitUnknown
from tasks.jobs import Request, now
from tasks.ledger import OPEN, RESUBMIT_AFTER_S, Failure, Ledger, Standing
from tasks.reconcile import NEIGHBOUR_S
from tasks.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

READERS = 16
"""Jobs that are read at once."""

BY_NEED: tuple[JobState, ...] = ("unknown", "failed", "rejected", "deferred", "open", "completed")
"""The order of a survey: what needs a person comes first."""

RESUME = "run `effects resume`"
ASK_AGAIN = "ask for it again: it is not on the list of what is open, so `effects resume` passes it over"

_JOB_FILE = re.compile(r"(?P<effect>[a-z0-9][a-z0-9_'-]*)/(?P<job_id>[0-9a-f]{32})/(metadata\.json|attempts/[0-9]+/.+)")
_NOTE = re.compile(rf"{OPEN}/(?P<job_id>[0-9a-f]{{32}})\.json")

T = TypeVar("T")
R = TypeVar("R")


class Entry(BaseModel):
    """One job as its files show it.

    Attributes:
        effect: empty where only a note is left that cannot be read.
        state: completed, open, unknown, deferred, failed or rejected.
        attempt: the latest, 0 where there is none; not looked up for completed jobs, which have it in their metadata.
        generation_id: the provider's id, of jobs that are open or failed.
        cost_usd: held for it (open), or perhaps paid for it (unknown); 0 where nothing is; None where it stands in
            `metadata.json` alone, or nowhere.
        reason: what happened; None for completed jobs of which nothing is left to do.
        next_move: what to do about it.
        since: since when it has stood like this; None for completed jobs.
    """

    model_config = ConfigDict(frozen=True)

    effect: str
    job_id: str
    state: JobState
    attempt: int = 0
    generation_id: str | None = None
    cost_usd: float | None = None
    reason: str | None = None
    next_move: str | None = None
    since: datetime | None = None


async def survey(ledger: Ledger, *, max_attempts: int = 2, names: tuple[str, ...] | None = None) -> tuple[Entry, ...]:
    """Every job of the ledger, by need, then by effect and id.

    Args:
        ledger: whose target is listed, once.
        max_attempts: as in the settings: a failure that is worth another attempt is final when they are used up.
        names: every file of the target, sorted, where somebody has listed them a moment ago; else they are listed.

    Raises:
        StorageError: the target cannot be listed or read.
    """
    return await _entries(ledger, await ledger.storage.list("") if names is None else names, max_attempts)


async def survey_open(ledger: Ledger, *, max_attempts: int = 2) -> tuple[Entry, ...]:
    """The same of the jobs that are noted as open, at a cost that does not grow with the archive.

    Raises:
        StorageError: as for `survey`.
    """
    notes = await ledger.storage.list(OPEN)
    requests = await ledger.open_requests()
    listed = await each(lambda request: ledger.storage.list(ledger.folder(request)), requests)
    return await _entries(ledger, tuple(sorted({*notes, *(name for names in listed for name in names)})), max_attempts)


@dataclass
class _Files:
    """What the listing shows of one job."""

    job_id: str
    effect: str = ""
    done: bool = False
    noted: bool = False


class _Listed(Storage):
    """A storage whose files were listed a moment ago, and are not listed again."""

    def __init__(self, storage: Storage, names: tuple[str, ...]) -> None:
        super().__init__(storage.url)
        self._names = names

    async def list(self, folder: str) -> tuple[str, ...]:
        """From the listing; "0" is the character behind "/"."""
        return self._names[bisect_left(self._names, f"{folder}/") : bisect_left(self._names, f"{folder}0")]


async def _entries(ledger: Ledger, names: tuple[str, ...], max_attempts: int) -> tuple[Entry, ...]:
    jobs: dict[str, _Files] = {}
    for name in names:
        if found := _JOB_FILE.fullmatch(name):
            job = jobs.setdefault(found["job_id"], _Files(found["job_id"]))
            job.effect = found["effect"]
            job.done = job.done or name.endswith("/metadata.json")
        elif found := _NOTE.fullmatch(name):
            jobs.setdefault(found["job_id"], _Files(found["job_id"])).noted = True
    listed = Ledger(_Listed(ledger.storage, names))
    unfinished = await each(
        lambda job: _unfinished(job, listed, max_attempts), [job for job in jobs.values() if not job.done]
    )
    entries = [*unfinished, *(_completed(job) for job in jobs.values() if job.done)]
    return tuple(sorted(entries, key=lambda entry: (BY_NEED.index(entry.state), entry.effect, entry.job_id)))


def _completed(job: _Files) -> Entry:
    reason = "its video is there; only the note that it is open was left behind" if job.noted else None
    return Entry(
        effect=job.effect,
        job_id=job.job_id,
        state="completed",
        reason=reason,
        next_move=f"{RESUME}: it tidies up" if reason else None,
    )


async def _unfinished(job: _Files, ledger: Ledger, max_attempts: int) -> Entry:
    note = await _note(job, ledger.storage) if job.noted else None
    # Without a note this says where the job lies, and no more.
    request = note or Request(job_id=job.job_id, effect=job.effect, sources=(), duration=0, model="", price_usd=0.0)
    standing = await ledger.standing(request) if request.effect else Standing()
    changes: dict[str, object] = {"effect": request.effect, "job_id": job.job_id, "attempt": standing.attempt}
    if failure := standing.failure:
        changes |= _failed(failure, standing.tries, max_attempts)
    elif generation := standing.generation:
        price = generation.request.price_usd if generation.cost_usd is None else generation.cost_usd
        changes |= {"state": "open", "generation_id": generation.id, "cost_usd": price}
        changes |= {"since": generation.submitted_at, "reason": "it is paid for, and no end of it is known yet"}
        changes |= {"next_move": GenerationTimeout.next_move}
    elif standing.stage == "claimed":
        changes |= {"cost_usd": note.price_usd if note else None, **_claimed(standing.claimed_at)}
    elif request.effect:
        since = await ledger.storage.modified(_note_path(job))
        changes |= {"reason": "it was begun, and nothing was sent", "next_move": RESUME, "since": since}
    else:
        changes |= {"reason": "its note cannot be read, and nothing else is known of it"}
        changes |= {"next_move": f"remove {_note_path(job)}, and ask for it again"}
    entry = Entry.model_validate({"state": "deferred", "cost_usd": 0.0} | changes)
    if job.noted or entry.state in {"failed", "rejected"}:
        return entry
    return entry.model_copy(update={"next_move": ASK_AGAIN})


def _failed(failure: Failure, tries: int, max_attempts: int) -> dict[str, object]:
    """A failure ends a job as `tasks.submit` would end it, or is worth another attempt."""
    found: dict[str, object] = {"reason": failure.reason, "generation_id": failure.generation_id, "since": failure.at}
    if failure.again and tries < max_attempts:
        mend = "top up or verify the account, or mend the key or the model, then " if failure.kind == "account" else ""
        return found | {"next_move": mend + RESUME}
    if failure.kind == "refused" and not failure.again:
        return found | {"state": "rejected", "next_move": Rejected.next_move}
    used_up = f" ({tries} of {max_attempts} attempts)" if failure.again else ""
    kind = "" if failure.kind in {"unspecified", "refused"} else f"{failure.kind}: "
    reason = f"{kind}{failure.reason}{used_up}"
    return found | {"state": "failed", "reason": reason, "next_move": GenerationFailed.next_move}


def _claimed(claimed_at: datetime | None) -> dict[str, object]:
    age_s = (now() - claimed_at).total_seconds() if claimed_at else NEIGHBOUR_S
    if age_s < NEIGHBOUR_S:
        reason = f"it was claimed {max(age_s, 0.0):.0f} s ago, and is perhaps being submitted right now"
        return {"state": "unknown", "reason": reason, "next_move": "look again in a moment", "since": claimed_at}
    reason = "its submitter is gone, and no answer was kept: it may have been paid for"
    allow = "; `--resubmit-unknown` allows that" if age_s >= RESUBMIT_AFTER_S else ""
    return {"state": "unknown", "reason": reason, "next_move": SubmitUnknown.next_move + allow, "since": claimed_at}


def _note_path(job: _Files) -> str:
    return f"{OPEN}/{job.job_id}.json"


async def _note(job: _Files, storage: Storage) -> Request | None:
    try:
        return Request.model_validate_json(await storage.read(_note_path(job)) or b"")
    except ValidationError:
        return None  # what cannot be read was never said


async def each(work: Callable[[T], Awaitable[R]], items: Iterable[T]) -> list[R]:
    """The results of `work` on every item, in order, so many at once."""
    slots = asyncio.Semaphore(READERS)

    async def one(item: T) -> R:
        async with slots:
            return await work(item)

    return await asyncio.gather(*(one(item) for item in items))

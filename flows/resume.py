"""Take up what was left open: lost answers, dead processes, waits that were too short."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from prefect import flow
from prefect.states import Completed, Failed

from flows.generate import make_video, not_there, there
from tasks.errors import BadInput, EffectsError, GenerationFailed, SubmitUnknown
from tasks.fetch import fetch_images, forget
from tasks.jobs import Outcome, Request, Summary
from tasks.settings import load_settings
from tasks.submit import allow_resubmission
from tasks.workspace import open_workspace

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from tasks.workspace import Workspace

FOR_A_PERSON = frozenset({"rejected", "failed", "unknown", "deferred"})
"""States in which nothing more happens by itself."""


@flow(name="resume")
async def resume(resubmit_unknown: bool = False, target: str | None = None) -> State[Summary]:
    """Finish every job that was begun and has no video yet. What was paid for is never paid for again.

    Args:
        resubmit_unknown: Also send again what may have been paid for already, where the provider's log does not
            show it. Each such job may cost twice.
        target: Where the ledger is; empty for EFFECTS_TARGET.
    """
    async with open_workspace(load_settings(target=target or None)) as workspace:
        summary = await resume_all(workspace, resubmit_unknown=resubmit_unknown)
    return summary_state(summary)


async def resume_all(workspace: Workspace, *, resubmit_unknown: bool) -> Summary:
    """Every open job, so many at a time; the cost grows with what is open, not with what was ever done."""
    in_flight = asyncio.Semaphore(workspace.settings.max_in_flight)

    async def one(request: Request) -> Outcome:
        async with in_flight:
            return await resume_job(request, workspace, resubmit_unknown=resubmit_unknown)

    requests = await workspace.ledger.open_requests()
    return Summary.of(await asyncio.gather(*(one(request) for request in requests)))


async def resume_job(request: Request, workspace: Workspace, *, resubmit_unknown: bool) -> Outcome:
    """One open job, from where it stands to one named state."""
    started, whole = time.monotonic(), request
    try:
        while True:
            if record := await workspace.ledger.record(request):
                await workspace.end(request)  # its process died between the last two writes
                return there(record, "reused", workspace, time.monotonic() - started)
            try:
                if await _opens_an_attempt(request, workspace):
                    whole = await fetch_again(request, workspace)
                record = await make_video(whole, workspace)
                return there(record, "completed", workspace, time.monotonic() - started)
            except GenerationFailed as failure:
                if failure.final:
                    raise
            except SubmitUnknown:
                if not resubmit_unknown:
                    raise
                await allow_resubmission(request, workspace)
            finally:
                forget(whole.sources)
    except EffectsError as error:
        return not_there(request.effect, request, error, workspace, time.monotonic() - started)


async def fetch_again(request: Request, workspace: Workspace) -> Request:
    """The job with its photos at hand again: their process is gone, and their scratch files with it.

    Raises:
        BadInput: a photo cannot be had any more, or is another one by now.
    """
    fetched = await fetch_images([source.url for source in request.sources], workspace)
    changed = [
        f"image {number} ({new.url}) is not the picture any more that was asked for"
        for number, (old, new) in enumerate(zip(request.sources, fetched, strict=True), start=1)
        if old.sha256 != new.sha256
    ]
    if changed:
        forget(fetched)
        raise BadInput(changed, job_id=request.job_id)
    sources = tuple(
        old.model_copy(update={"path": new.path}) for old, new in zip(request.sources, fetched, strict=True)
    )
    return request.model_copy(update={"sources": sources})


def summary_state(summary: Summary) -> State[Any]:
    """Failed only where a person has to act; the counts in the message."""
    if FOR_A_PERSON.intersection(summary.counts):
        return Failed(message=summary.line, data=summary)
    return Completed(message=summary.line, data=summary)


async def _opens_an_attempt(request: Request, workspace: Workspace) -> bool:
    return (await workspace.ledger.standing(request)).stage in {"new", "failed"}

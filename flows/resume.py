"""Take up what was left open: lost answers, dead processes, waits that were too short."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from prefect import flow
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads the flow's annotations for the form

from flows.attention import call_for_a_person
from flows.configuration import configured
from flows.generate import make_video
from flows.outcomes import not_there, summary_state, there
from tasks.errors import BadInput, GenerationFailed, SubmitUnknown
from tasks.fetch import fetch_images, forget
from tasks.jobs import Outcome, Summary
from tasks.reckoning import Reckoning
from tasks.reconcile import allow_resubmission
from tasks.submit import final_error
from tasks.workspace import open_workspace

if TYPE_CHECKING:
    from tasks.jobs import Record, Request
    from tasks.workspace import Workspace

log = logging.getLogger("effects")


@flow(name="resume", flow_run_name="resume · what is open", on_failure=[call_for_a_person])
async def resume(resubmit_unknown: bool = False, target: str | None = None) -> State[Summary]:
    """Finish every job that was begun and has no video yet. What was paid for is never paid for again.

    Args:
        resubmit_unknown: Also send again what may have been paid for already, where the provider's log does not
            show it. Each such job may cost twice.
        target: Where the ledger is; empty for the default target.
    """
    async with open_workspace(await configured(target=target or None)) as workspace:
        summary = await resume_all(workspace, resubmit_unknown=resubmit_unknown)
    return summary_state(summary)


async def resume_all(workspace: Workspace, *, resubmit_unknown: bool) -> Summary:
    """Every open job, so many at a time; the cost grows with what is open, not with what was ever done."""
    in_flight = asyncio.Semaphore(workspace.settings.max_in_flight)

    async def one(request: Request) -> Outcome:
        async with in_flight:
            return await resume_job(request, workspace, resubmit_unknown=resubmit_unknown)

    requests = await workspace.ledger.open_requests()
    if not requests:
        return Summary.of(())
    reckoning = await Reckoning.begin(workspace.provider.balance_usd)
    rows = await asyncio.gather(*(one(request) for request in requests))
    await reckoning.end(workspace.budget)
    return Summary.of(rows)


async def resume_job(request: Request, workspace: Workspace, *, resubmit_unknown: bool) -> Outcome:
    """One open job, from where it stands to one named state."""
    started = time.monotonic()
    try:
        record = await workspace.ledger.record(request)
        if record:
            await workspace.end(request)  # its process died between the last two writes
            outcome = there(record, "reused", workspace, time.monotonic() - started)
        else:
            record = await _finish(request, workspace, resubmit_unknown=resubmit_unknown)
            outcome = there(record, "completed", workspace, time.monotonic() - started)
    except Exception as error:  # noqa: BLE001 - whatever went wrong, a job that was paid for must not look unpaid
        outcome = await not_there(request.effect, request, error, workspace, time.monotonic() - started)
    about = {"effect": request.effect, "job_id": request.job_id, "ended": outcome.state}
    log.info("%s", f"{outcome.state}: {outcome.reason}" if outcome.reason else outcome.state, extra=about)
    return outcome


async def _finish(request: Request, workspace: Workspace, *, resubmit_unknown: bool) -> Record:
    """As many attempts as are worth it and allowed, to a video.

    Raises:
        EffectsError: by its next move.
    """
    while True:
        whole, begins = request, await _opens_an_attempt(request, workspace)
        try:
            if begins:
                whole = await fetch_again(request, workspace)
            return await make_video(whole, workspace)
        except GenerationFailed as failure:
            if failure.final:
                raise
        except SubmitUnknown as unknown:
            if not resubmit_unknown or not unknown.looked_up:  # a log that cannot be read allows nothing
                raise
            await allow_resubmission(request, workspace)
        except BadInput:
            # The attempt ended elsewhere behind our look, and the next one had no photos at hand.
            if begins or not await _opens_an_attempt(request, workspace):
                raise
        finally:
            forget(whole.sources)


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


async def _opens_an_attempt(request: Request, workspace: Workspace) -> bool:
    """Whether photos are needed next: not for what is under way, nor for what has failed for good.

    Raises:
        Rejected, GenerationFailed: it has failed for good, and its process died before it could tidy up.
    """
    standing = await workspace.ledger.standing(request)
    if final := final_error(standing, request, workspace.settings):
        await workspace.end(request)
        raise final
    return standing.stage in {"new", "failed"}

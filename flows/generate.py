"""One video: from photos anywhere to a file in the target."""

from __future__ import annotations

import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated

from prefect import flow, runtime
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads the flow's annotations for the form
from pydantic import Field

from flows.configuration import configured
from flows.form import Duration, Effect  # noqa: TC001 - likewise
from flows.outcomes import as_state, not_there, there
from flows.veil import unveiled
from tasks.effects import check_job
from tasks.errors import EffectsError, GenerationFailed
from tasks.fetch import fetch, fetch_images, forget
from tasks.jobs import Job, Outcome, Record, Request, SourceImage, public_url
from tasks.persist import persist_video
from tasks.poll import poll_generation
from tasks.submit import submit_generation
from tasks.validate import validate, validate_images
from tasks.visibility import about_job
from tasks.workspace import open_workspace

if TYPE_CHECKING:
    from tasks.settings import Settings
    from tasks.workspace import Workspace


def _run_name() -> str:
    asked = runtime.flow_run.parameters
    names = " + ".join(PurePosixPath(public_url(url).partition("?")[0]).name for url in asked.get("images", ()))
    return f"{asked.get('effect')} · {names}"


@flow(name="generate", flow_run_name=_run_name)
async def generate(
    effect: Effect,
    images: Annotated[list[str], Field(min_length=1)],
    duration: Duration = 5,
    take: Annotated[int, Field(ge=0)] = 0,
    target: str | None = None,
) -> State[Outcome]:
    """Make one video effect out of one or two photos. The same photos and effect are never paid for twice.

    Args:
        effect: What happens in it. hug, kiss, heart_gesture take two photos; squish, expansion and most others one.
        images: The photos, one a line: URLs (https, s3, …) or paths that the worker can read. For two people one
            photo each, first the person on the left.
        duration: Seconds. Effects of two people come in 5 or 10, the others in 5.
        take: 0 for the first video; 1, 2… for another variation of the same photos, which costs anew.
        target: Where the video goes; empty for the default target.
    """
    job = Job(effect=effect, images=unveiled(images), duration=duration, take=take)
    try:
        settings = await configured(target=target or None)
        async with open_workspace(settings) as workspace:
            check_job(job, workspace.catalogue, default_model=settings.model)  # before anything is fetched
            outcome = await generate_video(job, workspace)
    except EffectsError as error:
        outcome = Outcome.from_error(effect, error)
    return as_state(outcome)


async def generate_video(job: Job, workspace: Workspace) -> Outcome:
    """The five steps, and what became of the job. Whatever goes wrong with it ends in a named state."""
    started, request = time.monotonic(), None
    about_job.set(about_job.get() or job.effect)
    sources: tuple[SourceImage, ...] = ()
    try:
        async with workspace.preparing:
            sources = await fetch_images(job.images, workspace)
            request = await validate_images(sources, job, workspace)
        async with workspace.turn(request):
            if record := await workspace.ledger.record(request):
                await workspace.end(request)  # in case its process died between the last two writes
                return there(record, "reused", workspace, time.monotonic() - started)
            while True:
                try:
                    record = await make_video(request, workspace)
                    return there(record, "completed", workspace, time.monotonic() - started)
                except GenerationFailed as failure:
                    if failure.final:
                        raise
    except Exception as error:  # noqa: BLE001 - whatever went wrong, a job that was paid for must not look unpaid
        return await not_there(job.effect, request, error, workspace, time.monotonic() - started)
    finally:
        forget(sources)


async def make_video(request: Request, workspace: Workspace) -> Record:
    """One attempt: the next one, or the one that is under way, to its end.

    Raises:
        EffectsError: by its next move; `GenerationFailed` that is not final is worth another call.
    """
    generation = await submit_generation(request, workspace)
    video = await poll_generation(generation, workspace)
    return await persist_video(video, workspace)


async def rehearse(job: Job, settings: Settings) -> Outcome:
    """Everything up to the submission, without Prefect and without a trace: what it would cost, or that it is there.

    Raises:
        BadInput: with every problem at once.
        StorageError: the target cannot be read.
    """
    async with open_workspace(settings) as workspace:
        return await rehearse_in(job, workspace)


async def rehearse_in(job: Job, workspace: Workspace) -> Outcome:
    """The same in a workspace that is open already."""
    started, settings = time.monotonic(), workspace.settings
    sources = await fetch(
        job.images,
        workspace.scratch,
        max_bytes=workspace.catalogue.provider.images.max_bytes,
        private_hosts=settings.private_hosts_allowed,
    )
    try:
        request = await validate(sources, job, catalogue=workspace.catalogue, default_model=settings.model)
    finally:
        forget(sources)
    if record := await workspace.ledger.record(request):
        return there(record, "reused", workspace, time.monotonic() - started)
    return Outcome(
        state="deferred",
        job_id=request.job_id,
        effect=request.effect,
        cost_usd=request.price_usd,
        seconds=round(time.monotonic() - started, 3),
        reason=f"dry run: nothing was sent; it would cost about ${request.price_usd:.2f}",
    )

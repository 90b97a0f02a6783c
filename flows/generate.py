"""One video: from photos anywhere to a file in the target."""

from __future__ import annotations

import time
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from prefect import flow, runtime
from prefect.states import Completed, Failed
from pydantic import Field

from tasks.errors import EffectsError, GenerationFailed
from tasks.fetch import fetch, fetch_images, forget
from tasks.jobs import Job, Outcome, Record, Request, SourceImage, public_url
from tasks.persist import persist_video
from tasks.poll import poll_generation
from tasks.settings import Settings, load_settings
from tasks.submit import submit_generation
from tasks.validate import validate, validate_images
from tasks.workspace import open_workspace

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from tasks.workspace import Workspace

T = TypeVar("T")


def _run_name() -> str:
    asked = runtime.flow_run.parameters
    names = " + ".join(PurePosixPath(public_url(url).partition("?")[0]).name for url in asked.get("images", ()))
    return f"{asked.get('effect')} · {names}"


@flow(name="generate", flow_run_name=_run_name)
async def generate(
    effect: str,
    images: list[str],
    duration: int = 5,
    take: Annotated[int, Field(ge=0)] = 0,
    target: str | None = None,
) -> State[Outcome]:
    """Make one video effect out of one or two photos. The same photos and effect are never paid for twice.

    Args:
        effect: A scene of the catalogue, such as hug, kiss, heart_gesture (two photos), squish or expansion (one).
        images: The photos, as URLs or paths that the worker can read. For two people: the first is on the left.
        duration: Seconds. Two-person effects come in 5 or 10, the others in 5.
        take: 0 for the first video; 1, 2… for another variation of the same photos, which costs anew.
        target: Where the video goes; empty for EFFECTS_TARGET.
    """
    job = Job(effect=effect, images=tuple(images), duration=duration, take=take)
    try:
        async with open_workspace(load_settings(target=target or None)) as workspace:
            outcome = await generate_video(job, workspace)
    except EffectsError as error:
        outcome = Outcome.from_error(effect, error)
    return as_state(outcome)


async def generate_video(job: Job, workspace: Workspace) -> Outcome:
    """The five steps, and what became of the job. Whatever goes wrong with it ends in a named state."""
    started, request = time.monotonic(), None
    sources: tuple[SourceImage, ...] = ()
    try:
        sources = await fetch_images(job.images, workspace)
        request = await validate_images(sources, job, workspace)
        if record := await workspace.ledger.record(request):
            return there(record, "reused", workspace, time.monotonic() - started)
        while True:
            try:
                record = await make_video(request, workspace)
                return there(record, "completed", workspace, time.monotonic() - started)
            except GenerationFailed as failure:
                if failure.final:
                    raise
    except EffectsError as error:
        return not_there(job.effect, request, error, workspace, time.monotonic() - started)
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
    started = time.monotonic()
    async with open_workspace(settings) as workspace:
        sources = await fetch(
            job.images,
            workspace.scratch,
            max_bytes=workspace.catalogue.provider.images.max_bytes,
            private_hosts=settings.private_hosts_allowed,
        )
        request = await validate(sources, job, catalogue=workspace.catalogue, default_model=settings.model)
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


def outcome_of(state: State[Any]) -> Outcome:
    """The outcome that a flow run's state carries.

    Raises:
        EffectsError: where the run ended before it had one.
    """
    return carried(state, Outcome)


def carried(state: State[Any], kind: type[T]) -> T:
    """What a flow run's state carries.

    Raises:
        EffectsError: where the run ended before it had one.
    """
    data = getattr(state.data, "result", state.data)
    if isinstance(data, kind):
        return data
    if isinstance(data, EffectsError):
        raise data
    raise EffectsError(f"the flow run ended as {state.name}: {state.message}")


def as_state(outcome: Outcome) -> State[Outcome]:
    """The flow run's state: failed only where somebody has to act, and the reason in its message."""
    if outcome.state in {"completed", "reused"}:
        return Completed(name=outcome.state.capitalize(), message=outcome.video, data=outcome)
    if outcome.state == "open":
        return Completed(name="Open", message=outcome.reason, data=outcome)
    return Failed(name=outcome.state.capitalize(), message=outcome.reason, data=outcome)


def there(record: Record, state: Literal["completed", "reused"], workspace: Workspace, seconds: float) -> Outcome:
    """The outcome of a job whose video is there; `seconds` is how long this run took over it."""
    return Outcome(
        state=state,
        job_id=record.job_id,
        effect=record.effect,
        generation_id=record.generation_id,
        attempt=record.attempt,
        video=record.video,
        metadata=workspace.ledger.url_of(record, "metadata.json"),
        cost_usd=workspace.budget.spent_on(record.job_id),
        seconds=round(seconds, 3),
    )


def not_there(
    effect: str, request: Request | None, error: EffectsError, workspace: Workspace, seconds: float
) -> Outcome:
    """The outcome of a job that ended in an error, with what this run has committed for it."""
    outcome = Outcome.from_error(effect, error, request=request)
    spent = workspace.budget.spent_on(outcome.job_id) if outcome.job_id else 0.0
    return outcome.model_copy(update={"cost_usd": spent, "seconds": round(seconds, 3)})

"""Poll: one attempt of the task is one look; what lies between is AwaitingRetry, with the reason beside it."""

from __future__ import annotations

import asyncio
import math
from copy import copy
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from prefect import Task
from prefect.cache_policies import NO_CACHE

from tasks.errors import EffectsError, GenerationFailed, GenerationPending, GenerationTimeout, ProviderBusy
from tasks.jobs import Generation, Video, now
from tasks.ledger import Failure
from tasks.visibility import named, retry_if, watched
from tasks.wait import SHORTEST_PAUSE_S, Wait

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State, TaskRun

    from tasks.answers import Look
    from tasks.workspace import Workspace

LOOK_TIMEOUT_S = 60.0
"""For one look, all of it; httpx gives up earlier, this is the net below."""

MISSING_LOOKS = 10
"""So many looks in a row may find nothing: "not found" happens to generations that are there."""

MOST_LOOKS = 10_000
"""More than any wait has: what ends it is its time-out."""


async def poll_generation(generation: Generation, workspace: Workspace) -> Video:
    """Wait for a generation. A transient error costs a look, never the wait.

    Raises:
        GenerationFailed: the provider ended it without a video; the ledger knows.
        GenerationTimeout: the wait is over; the generation stays open.
        NotAuthorized: the key no longer opens it; the generation stays open.
    """
    settings, histories = workspace.settings, workspace.histories
    await histories.load(generation.request)
    wait = Wait(
        settings.generation_timeout_s,
        age_s=max(0.0, (now() - generation.submitted_at).total_seconds()),
        interval_s=settings.poll_interval_s,
        samples=partial(histories.samples, generation.request),
        share_left=histories.share_left,
    )
    histories.begin(generation, wait)
    try:
        # A task for this wait alone: its pauses are planned look by look.
        video: Video = await copy(_poll_task())(generation, workspace, wait)
    finally:
        histories.end(generation)
    return video


@cache
def _poll_task() -> Task[..., Any]:
    """Made once: Prefect goes through a task's source for that."""
    return Task(
        fn=poll,
        name="poll",
        task_run_name=named("poll"),
        cache_policy=NO_CACHE,
        retries=MOST_LOOKS,
        retry_delay_seconds=SHORTEST_PAUSE_S,
        retry_condition_fn=_look_again,
        persist_result=False,
    )


def _look_again(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether it is worth another look, and when: Prefect asks this first, and for the task's delay after that."""
    if isinstance(state.data, GenerationPending):
        # Prefect says it in its log: hundredths, and none too early.
        task.retry_delay_seconds = [math.ceil(100 * state.data.look_in_s) / 100]
    return _if_pending(task, run, state)


_if_pending = retry_if(lambda error: isinstance(error, GenerationPending))


async def poll(generation: Generation, workspace: Workspace, wait: Wait) -> Video:
    """The step's logic: one look, which ends in a video or in the error that says what to do.

    Raises:
        GenerationPending: look again later.
        GenerationFailed, GenerationTimeout, NotAuthorized: see `poll_generation`.
    """
    if early_s := wait.early_s():  # nothing new is to be seen before, and no attempt is spent on that
        _tell(generation, f"{generation.status}; looking in {early_s:.0f} s")
        await asyncio.sleep(early_s)
    age_s = wait.age_s()
    look = await _look(generation, workspace, wait)
    wait.looks += 1
    if look is None:
        wait.missing += 1
        if wait.missing >= MISSING_LOOKS:
            raise _timeout(generation, f"the provider did not know the generation in {wait.missing} looks in a row")
        raise await _pending(generation, workspace, wait, "the provider does not know the generation yet")
    wait.missing = 0
    if look.failed:
        raise await _failed(generation, look, workspace)
    if look.video_url:
        await workspace.histories.learn(generation, wait, done=True)
        return Video(generation=generation, url=look.video_url, size=look.size, looks=wait.looks, seen_at=now())
    wait.running_s = age_s
    raise await _pending(generation, workspace, wait, look.status)


async def _look(generation: Generation, workspace: Workspace, wait: Wait) -> Look | None:
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            return await workspace.provider.look(generation.id)
    except TimeoutError:
        raise await _pending(generation, workspace, wait, "the look took too long; still waiting") from None
    except ProviderBusy as busy:
        if busy.retry_after:
            wait.not_before = wait.clock() + busy.retry_after
        raise await _pending(generation, workspace, wait, f"{busy.reason}; still waiting") from busy
    except EffectsError as error:
        error.job_id, error.attempt = generation.request.job_id, generation.attempt
        error.generation_id = generation.id
        raise


async def _pending(generation: Generation, workspace: Workspace, wait: Wait, status: str) -> EffectsError:
    if wait.over():
        await workspace.histories.learn(generation, wait, done=False)
        return _timeout(generation, f"not finished after {wait.timeout_s:g} s (last seen: {status})")
    looks = "1 look" if wait.looks == 1 else f"{wait.looks} looks"
    _tell(generation, f"{status} ({looks})")
    return GenerationPending(f"{status} ({looks}, {wait.waited_s():.0f} s)", look_in_s=wait.pause_s())


def _tell(generation: Generation, text: str) -> None:
    request = generation.request
    watched.info("%s", text, extra={"effect": request.effect, "job_id": request.job_id})


def _timeout(generation: Generation, reason: str) -> GenerationTimeout:
    return GenerationTimeout(
        reason, job_id=generation.request.job_id, generation_id=generation.id, attempt=generation.attempt
    )


async def _failed(generation: Generation, look: Look, workspace: Workspace) -> GenerationFailed:
    failed = look.failed
    if failed is None:
        raise AssertionError("only a failed look comes here")
    failure = Failure(
        kind=failed.kind,
        reason=failed.reason,
        again=not failed.input_fault,
        counts=True,
        generation_id=generation.id,
        at=now(),
    )
    held_usd = generation.cost_usd if generation.cost_usd is not None else generation.request.price_usd
    workspace.budget.let_go(generation.request.job_id, generation.attempt, refund_usd=held_usd)  # never charged
    await workspace.ledger.record_failure(generation.request, generation.attempt, failure)
    if failed.input_fault:
        await workspace.end(generation.request)
    return GenerationFailed(
        failed.reason,
        kind=failed.kind,
        final=failed.input_fault,
        job_id=generation.request.job_id,
        generation_id=generation.id,
        attempt=generation.attempt,
    )

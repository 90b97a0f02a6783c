"""Poll: one attempt of the task is one look; what lies between is AwaitingRetry, with the reason beside it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from prefect import Task
from prefect.cache_policies import NO_CACHE

from tasks.errors import EffectsError, GenerationFailed, GenerationPending, GenerationTimeout, ProviderBusy
from tasks.jobs import Generation, Video, now
from tasks.ledger import Failure
from tasks.looks import delays_s, plan_looks
from tasks.visibility import named, retry_if

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.answers import Look
    from tasks.workspace import Workspace

watched = logging.getLogger("effects_looks")
"""For who watches as it happens; Prefect logs each retry itself, so these lines need not reach it."""

LOOK_TIMEOUT_S = 60.0
"""For one look, all of it; httpx gives up earlier, this is the net below."""

MISSING_LOOKS = 10
"""So many looks in a row may find nothing: "not found" happens to generations that are there."""

AGE_STEP_S = 30.0
"""Ages are rounded up to this, so that generations of about the same age share a plan, and the task made for it."""


class Wait:
    """The wait for one generation: when it is over, and what the last looks found. Lives through the task's retries.

    Not a dataclass: Prefect must pass it on as it is.

    Args:
        timeout_s: for the whole wait.
        first_look_s: seconds after the submission before which a look tells nothing new.

    Attributes:
        looks: how many were made.
        missing: how many of the latest in a row did not find the generation.
        not_before: no look before this, on the monotonic clock: the provider asked for it.
    """

    def __init__(
        self, timeout_s: float, first_look_s: float = 0.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.timeout_s = timeout_s
        self.first_look_s = first_look_s
        self.clock = clock
        self.started = clock()
        self.looks = 0
        self.missing = 0
        self.not_before = 0.0

    def waited_s(self) -> float:
        """Seconds since the wait began."""
        return self.clock() - self.started


def planned_delays(interval_s: float | None, timeout_s: float, age_s: float = 0.0) -> tuple[float, ...]:
    """Seconds between looks, the last of them for ever: as set, or where they are likely to find something.

    Args:
        interval_s: one look every so many seconds; None has them planned.
        timeout_s: of the wait.
        age_s: of the generation; one that is taken up again has no minute of rest before it.
    """
    if interval_s is not None:
        return (interval_s,)
    age_s = math.ceil(age_s / AGE_STEP_S) * AGE_STEP_S if age_s > AGE_STEP_S / 2 else 0.0
    return delays_s(plan_looks((), timeout_s=age_s + timeout_s, elapsed_s=age_s), age_s)


async def poll_generation(generation: Generation, workspace: Workspace) -> Video:
    """Wait for a generation. A transient error costs a look, never the wait.

    Raises:
        GenerationFailed: the provider ended it without a video; the ledger knows.
        GenerationTimeout: the wait is over; the generation stays open.
        NotAuthorized: the key no longer opens it; the generation stays open.
    """
    settings = workspace.settings
    age_s = max(0.0, (now() - generation.submitted_at).total_seconds())
    delays = planned_delays(settings.poll_interval_s, settings.generation_timeout_s, age_s)
    # The submission's own answer was the first look; a generation that is taken up again is looked at straight away.
    wait = Wait(settings.generation_timeout_s, first_look_s=delays[0] / 2 if age_s < delays[0] / 2 else 0.0)
    video: Video = await _poll_task(delays, settings.generation_timeout_s)(generation, workspace, wait)
    return video


@lru_cache(maxsize=64)
def _poll_task(delays: tuple[float, ...], timeout_s: float) -> Task[..., Any]:
    return Task(
        fn=poll,
        name="poll",
        task_run_name=named("poll"),
        cache_policy=NO_CACHE,
        retries=len(delays) + int(timeout_s / min(delays)) + 1,  # the wait ends before these do
        retry_delay_seconds=list(delays),
        retry_jitter_factor=0.1,
        retry_condition_fn=retry_if(lambda error: isinstance(error, GenerationPending)),
        persist_result=False,
    )


async def poll(generation: Generation, workspace: Workspace, wait: Wait) -> Video:
    """The step's logic: one look, which ends in a video or in the error that says what to do.

    Raises:
        GenerationPending: look again later.
        GenerationFailed, GenerationTimeout, NotAuthorized: see `poll_generation`.
    """
    if wait.waited_s() < wait.first_look_s:
        raise _pending(generation, wait, generation.status)
    if pause := max(0.0, wait.not_before - wait.clock()):
        await asyncio.sleep(min(pause, LOOK_TIMEOUT_S / 2))
    look = await _look(generation, workspace, wait)
    wait.looks += 1
    if look is None:
        wait.missing += 1
        if wait.missing >= MISSING_LOOKS:
            raise _timeout(generation, f"the provider did not know the generation in {wait.missing} looks in a row")
        raise _pending(generation, wait, "the provider does not know the generation yet")
    wait.missing = 0
    if look.failed:
        raise await _failed(generation, look, workspace)
    if look.video_url:
        return Video(generation=generation, url=look.video_url, size=look.size, looks=wait.looks, seen_at=now())
    raise _pending(generation, wait, look.status)


async def _look(generation: Generation, workspace: Workspace, wait: Wait) -> Look | None:
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            return await workspace.provider.look(generation.id)
    except TimeoutError:
        raise _pending(generation, wait, "the look took too long; still waiting") from None
    except ProviderBusy as busy:
        if busy.retry_after:
            wait.not_before = wait.clock() + busy.retry_after
        raise _pending(generation, wait, f"{busy.reason}; still waiting") from busy
    except EffectsError as error:
        error.job_id, error.attempt = generation.request.job_id, generation.attempt
        error.generation_id = generation.id
        raise


def _pending(generation: Generation, wait: Wait, status: str) -> EffectsError:
    if wait.waited_s() >= wait.timeout_s:
        return _timeout(generation, f"not finished after {wait.timeout_s:g} s (last seen: {status})")
    looks = "1 look" if wait.looks == 1 else f"{wait.looks} looks"
    request = generation.request
    watched.info("%s (%s)", status, looks, extra={"effect": request.effect, "job_id": request.job_id})
    return GenerationPending(f"{status} ({looks}, {wait.waited_s():.0f} s)")


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
    workspace.budget.let_go(generation.request.job_id, generation.attempt)  # failures are never charged
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

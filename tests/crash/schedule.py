"""One schedule: a seed decides what is asked for, by how many processes, and everything that goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
import random
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import pytest

import flows.generate
import flows.resume
import tasks.delivery
import tasks.ledger
import tasks.persist
import tasks.poll
import tasks.reconcile
import tasks.submit
from deployments.sandbox.faults import Fault
from deployments.sandbox.knobs import Knobs
from tasks.errors import BadResult, EffectsError, GenerationPending, JobState, ProviderBusy, StorageError
from tasks.jobs import Job, Outcome, Record, Request, SourceImage, Video, job_id
from tasks.wait import Wait
from tests.crash.invariants import double_payments, lost_videos
from tests.crash.virtual_time import VirtualTimeLoop
from tests.crash.world import CATALOGUE, EPOCH, Chaos, Killed, Process, World

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from datetime import datetime

    from tasks.jobs import Generation
    from tasks.workspace import Workspace

PERSIST_PAUSES_S = (2.0, 10.0, 30.0)
"""As the task has them."""

LONGEST_RUN_S = 6 * 3600.0
"""In virtual time. Waits end after minutes, stalls after an hour: what goes on for longer goes round in circles."""

STARTS_AFTER_S = (0.0, 0.0, 0.0, 1.0, 30.0, 1000.0, 2000.0)

SUBMIT_FAULTS: tuple[dict[str, Any], ...] = (
    {"kind": "429"},
    {"kind": "429", "retry_after": 20},
    {"kind": "500"},
    {"kind": "502", "when": "after"},
    {"kind": "524", "when": "after"},
    {"kind": "408"},
    {"kind": "html_200", "when": "after"},
    {"kind": "malformed_json", "when": "after"},
    {"kind": "no_credits"},
    {"kind": "unauthorized"},
    {"kind": "withdrawn"},
    {"kind": "invalid"},
    {"kind": "no_meta"},
    {"kind": "generation_id_key"},
    {"kind": "id_uuid"},
    {"kind": "id_dash"},
)
OUTCOME_FAULTS = ("error_null", "error_text", "error_named", "error_detail")
LOOK_FAULTS = (
    "500",
    "429",
    "html_200",
    "malformed_json",
    "not_found",
    "status_unknown",
    "status_succeeded",
    "video_list",
)
CDN_FAULTS = ("cdn_404", "cdn_503", "cdn_expired", "cdn_html", "cdn_short", "cdn_not_video", "cdn_wrong_length")


@dataclass
class Report:
    """What a schedule came to.

    Attributes:
        violations: in words; empty where every promise was kept.
        double_payments, lost_videos, unnamed: the same by promise.
        runs: processes that were started; `killed`, those that died.
        operations: I/O operations of the first process, for schedules that die at each of them in turn.
    """

    seed: int
    violations: list[str] = field(default_factory=list)
    double_payments: int = 0
    lost_videos: int = 0
    unnamed: int = 0
    runs: int = 0
    killed: int = 0
    billed: int = 0
    operations: int = 0


def random_schedule(seed: int) -> Report:
    """A schedule in which everything is drawn from the seed."""
    return _in_virtual_time(lambda loop: _Schedule(seed, loop).run())


def dying_schedule(deaths: Sequence[tuple[int, bool]], *, processes: int = 1) -> Report:
    """A schedule in which nothing goes wrong, but that the first runs die at given operations.

    Args:
        deaths: for each run in turn, the number of its operation and whether that took effect.
        processes: started at once in each run, on the same job.
    """
    return _in_virtual_time(lambda loop: _Schedule(0, loop).run_deaths(deaths, processes))


class _Schedule:
    def __init__(self, seed: int, loop: VirtualTimeLoop) -> None:
        self.rng = random.Random(f"schedule {seed}")  # noqa: S311 - simulation
        self.world = World(seed, Knobs(render=False, fetch_images=False, seed=seed, generate_seconds=20.0), loop)
        self.report = Report(seed)
        self.resubmit_allowed = False
        self.promised: set[str] = set()
        """Generations whose ids a run has told of: they are known, whatever the provider's log says."""

    async def run(self) -> Report:
        rng, world = self.rng, self.world
        jobs = [_job(take) for take in range(rng.choice((1, 1, 2)))]
        log_is_honest = rng.random() < 0.7
        world.knobs.log_delay_seconds = 0.0 if log_is_honest else 1e9
        world.knobs.logs_running_rows = rng.random() < 0.7
        world.knobs.sigma = rng.choice((0.0, 0.5, 1.5))
        world.knobs.faults = self._faults()
        self.resubmit_allowed = rng.random() < 0.3
        if rng.random() < 0.2:
            await self._stall(jobs[0])
        for _ in range(rng.randint(1, 4)):
            world.chaos = rng.choice(
                (
                    Chaos(),
                    Chaos(crash=0.04),
                    Chaos(crash=0.02, fail=0.04),
                    Chaos(fail=0.08),
                    Chaos(stall=0.05),
                    Chaos(stall=0.05, crash=0.02),
                )
            )
            await self._start([rng.choice(jobs) for _ in range(rng.randint(1, 3))])
            await asyncio.sleep(rng.choice((0.0, 5.0, 200.0, 2000.0)))
        await self._heal(jobs, log_is_honest=log_is_honest)
        return self.report

    async def run_deaths(self, deaths: Sequence[tuple[int, bool]], processes: int) -> Report:
        job = _job(0)
        for death in deaths:
            self.world.chaos = Chaos(die_at=death)
            self.world.operations = 0
            await asyncio.gather(*(self._process(job, resume=False) for _ in range(processes)))
            self.report.operations = max(self.report.operations, self.world.operations)
        await self._heal([job], log_is_honest=True)
        return self.report

    def _faults(self) -> list[Fault]:
        rng = self.rng
        few = {"count": rng.randint(1, 2)}
        faults = [
            Fault(**fault, route="submit", **few) for fault in rng.sample(SUBMIT_FAULTS, rng.choice((0, 0, 1, 2)))
        ]
        faults += [Fault(kind=rng.choice(OUTCOME_FAULTS), **few) for _ in range(rng.choice((0, 0, 1)))]
        faults += [Fault(kind=kind, route="poll", rate=0.3) for kind in rng.sample(LOOK_FAULTS, rng.choice((0, 1, 2)))]
        faults += [Fault(kind=kind, count=1) for kind in rng.sample(CDN_FAULTS, rng.choice((0, 0, 1)))]
        return faults

    async def _stall(self, job: Job) -> None:
        """A process stands still somewhere, while others are allowed to send again what it leaves unknown."""
        rng, self.resubmit_allowed = self.rng, True
        self.world.chaos = Chaos(stall_at=(rng.randint(0, 9), rng.uniform(0.0, 3000.0)))
        self.world.operations = 0
        sweeps = (self._process(job, resume=True, after_s=rng.uniform(1.0, 3000.0)) for _ in range(3))
        await asyncio.gather(self._process(job, resume=False), *sweeps)

    async def _start(self, jobs: Sequence[Job]) -> None:
        """Start a process for each job, at once or later; one in three takes up what is open in place of asking."""
        await asyncio.gather(
            *(
                self._process(job, resume=self.rng.random() < 0.35, after_s=self.rng.choice(STARTS_AFTER_S))
                for job in jobs
            )
        )

    async def _process(self, job: Job, *, resume: bool, resubmit: bool | None = None, after_s: float = 0.0) -> None:
        allowed = self.resubmit_allowed if resubmit is None else resubmit
        self.report.runs += 1
        await asyncio.sleep(after_s)
        with tempfile.TemporaryDirectory(prefix="crash-") as scratch:
            process = Process(self.world, Path(scratch))
            try:
                async with asyncio.timeout(LONGEST_RUN_S):
                    if resume:
                        summary = await flows.resume.resume_all(process.workspace, resubmit_unknown=allowed)
                        outcomes: Sequence[Outcome] = summary.rows
                    else:
                        outcomes = [await flows.generate.generate_video(job, process.workspace)]
            except (Killed, asyncio.CancelledError):
                self.report.killed += 1
                return
            except EffectsError as error:
                if not resume:  # a sweep may be unable to read what is open; it says so, and the next one can
                    self.report.unnamed += 1
                    self.report.violations.append(f"a run ended in {type(error).__name__}: {error}")
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a job without a named state
                self.report.unnamed += 1
                self.report.violations.append(f"a run ended in {type(error).__name__}: {error}")
                return
        for outcome in outcomes:
            if outcome.generation_id and "storage is away" not in (outcome.reason or ""):
                self.promised.add(outcome.generation_id)
            if outcome.state not in get_args(JobState):
                self.report.unnamed += 1
                self.report.violations.append(f"a job ended as {outcome.state!r}")

    async def _heal(self, jobs: Sequence[Job], *, log_is_honest: bool) -> None:
        """Nothing goes wrong any more: ask again for everything, take up what is open, and look."""
        world = self.world
        world.chaos, world.knobs.faults = Chaos(), []
        await asyncio.sleep(3600.0)
        for job in jobs:
            await self._process(job, resume=False)
        for _ in range(2):
            await asyncio.sleep(3600.0)  # the slowest generation has come to its end
            await self._process(jobs[0], resume=True, resubmit=False)
        double, lost = double_payments(world), lost_videos(world, self.promised, log_is_honest=log_is_honest)
        self.report.double_payments, self.report.lost_videos = len(double), len(lost)
        self.report.violations += [*world.violations, *double, *lost]
        self.report.billed = world.provider.counters.billed
        await world.provider.close()


def _job(take: int) -> Job:
    return Job(effect="hug", images=("https://photos/left.jpg", "https://photos/right.jpg"), take=take)


def _in_virtual_time(schedule: Callable[[VirtualTimeLoop], Coroutine[Any, Any, Report]]) -> Report:
    loop = VirtualTimeLoop()
    loop.set_exception_handler(lambda *_: None)  # tasks of dead processes end in nobody's arms
    asyncio.set_event_loop(loop)
    random.seed(0)  # the steps' own jitter
    try:
        with simulated(loop):
            report = loop.run_until_complete(schedule(loop))
            for task in asyncio.all_tasks(loop):
                task.cancel()
        return report
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@contextmanager
def simulated(loop: VirtualTimeLoop) -> Iterator[None]:
    """Put virtual time under the code, and take Prefect and threads out of it; the steps' logic stays as it is.

    Fetching and looking at photos is not simulated: it happens before the first thing that costs money.
    """

    def now() -> datetime:
        return EPOCH + timedelta(seconds=loop.time())

    with pytest.MonkeyPatch.context() as patch:
        for module in (tasks.submit, tasks.reconcile, tasks.ledger, tasks.poll, tasks.persist):
            patch.setattr(module, "now", now, raising=False)
        patch.setattr(asyncio, "to_thread", _inline)
        for flow in (flows.generate, flows.resume):
            patch.setattr(flow, "fetch_images", _fetch)
        patch.setattr(flows.generate, "validate_images", _validate)
        patch.setattr(flows.generate, "submit_generation", tasks.submit.submit)
        patch.setattr(flows.generate, "poll_generation", _poll)
        patch.setattr(flows.generate, "persist_video", _persist)
        yield


async def _inline(function: Any, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - passes on what it gets
    return function(*arguments, **named)


async def _fetch(images: Sequence[str], _: Workspace) -> tuple[SourceImage, ...]:
    return tuple(
        SourceImage(url=url, sha256=hashlib.sha256(url.encode()).hexdigest(), size=1, media_type="image/jpeg")
        for url in images
    )


async def _validate(sources: Sequence[SourceImage], job: Job, _: Workspace) -> Request:
    model = CATALOGUE.provider.default_model
    return Request(
        job_id=job_id(job.effect, tuple(source.sha256 for source in sources), job.duration, model, job.take),
        effect=job.effect,
        sources=tuple(sources),
        duration=job.duration,
        model=model,
        take=job.take,
        price_usd=CATALOGUE.price_usd(model, job.duration),
    )


async def _poll(generation: Generation, workspace: Workspace) -> Video:
    """The retries that Prefect makes of a look."""
    clock = asyncio.get_running_loop().time
    settings = workspace.settings
    wait = Wait(settings.generation_timeout_s, interval_s=settings.poll_interval_s, clock=clock)
    while True:
        try:
            return await tasks.poll.poll(generation, workspace, wait)
        except GenerationPending as pending:
            await asyncio.sleep(pending.look_in_s)


async def _persist(video: Video, workspace: Workspace) -> Record:
    """The retries that Prefect makes of a download."""
    for pause in PERSIST_PAUSES_S:
        try:
            return await tasks.persist.persist(video, workspace)
        except (BadResult, ProviderBusy, StorageError):
            await asyncio.sleep(pause)
            video = await tasks.persist.refresh(video, workspace)
    return await tasks.persist.persist(video, workspace)

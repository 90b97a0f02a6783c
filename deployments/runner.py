"""Runs what the local stack serves: Prefect's runner, except that a run starts at once and a stop loses nothing.

Prefect starts a new Python for each run, which imports everything anew. Here one process has imported everything and
forks for each run (`multiprocessing`'s fork server): what then happens is what `python -m prefect.engine` does.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import runpy
import signal
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

import anyio
import anyio.abc
import anyio.to_thread
import prefect.engine
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.runner import Runner
from prefect.runner._control_channel import ControlSignalStatus
from prefect.runner._process_manager import ProcessHandle
from prefect.states import AwaitingRetry, Scheduled

from deployments.automations import ensure_automations
from deployments.part import READY
from deployments.served import prefect_yaml, read_deployments
from tasks.jobs import Summary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.deployments.runner import RunnerDeployment

POLL_S = 0.5
"""Between two looks for new runs: each costs the server about 10 ms."""

END_S = 5
"""How long a run that is told to end may take before it is killed."""

SWEEP = "sweep"
"""The name of the deployments that look for what nobody has told of."""

HEAD_START_S = 30

FORKS = multiprocessing.get_context("forkserver")

IDLE = Summary.of(()).line
"""Sweeps that found nothing are not worth a line."""

AWAITING = AwaitingRetry().name


class LocalRunner(Runner):
    """Prefect's runner, with runs that are forked, and put back when it stops in place of being cancelled."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._scheduled_run_poller._resolve_starter = lambda _: Fork(self)
        return self

    def handle_sigterm(self, *_: object) -> None:
        """Stop; Prefect's own handler cannot, inside a running event loop."""
        if self._loop:
            self._loop.call_soon_threadsafe(lambda: asyncio.ensure_future(self.astop()))

    async def cancel_all(self) -> None:
        """Put back what is under way: its process ends, and the next start goes on where the ledger says."""
        # Who has not heard is killed, which is no crash; a run that crashes just now is found as running, likewise.
        self._state_proposer.propose_crashed = _not_now  # type: ignore[method-assign]
        runs = self._process_manager.flow_run_ids()
        for trouble in await asyncio.gather(*(self._put_back(run) for run in runs), return_exceptions=True):
            if trouble:  # the next start finds it as running, and begins it again
                _say(f"a run could not be put back: {trouble}")

    async def _put_back(self, flow_run_id: UUID) -> None:
        # The process has to know before it is told to end: else it says of itself that it crashed.
        heard = await self._control_channel.signal(flow_run_id, "reschedule")
        over = heard is ControlSignalStatus.ALREADY_CONCLUDED
        try:
            with anyio.fail_after(END_S):
                state = (await self._client.read_flow_run(flow_run_id)).state
                over = over or bool(state and state.is_final() and not state.is_crashed())
                if not over:
                    again: State[None] = AwaitingRetry(message="put back: `effects up` was stopped")
                    await self._client.set_flow_run_state(flow_run_id, again)
        finally:
            if not over:
                knows = heard is ControlSignalStatus.ACKNOWLEDGED
                await self._process_manager.kill(flow_run_id, END_S, force=not knows)


async def _not_now(*_: object, **__: object) -> None:
    """In place of calling a run crashed."""


class Fork:
    """Starts one flow run as a fork of the process that has imported everything."""

    def __init__(self, runner: LocalRunner) -> None:
        self._runner = runner

    async def start(
        self,
        flow_run: FlowRun,
        task_status: anyio.abc.TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Start it, say so, and wait until it has ended."""
        port, token = self._runner._control_channel.register(flow_run.id)
        environment = {
            "PREFECT__FLOW_RUN_ID": str(flow_run.id),
            "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",  # the runner's to run
            "PREFECT__CONTROL_PORT": str(port),
            "PREFECT__CONTROL_TOKEN": token,
        }
        process = FORKS.Process(target=_run, args=(environment,), name=f"flow run {flow_run.id}")
        try:
            await anyio.to_thread.run_sync(process.start)
        except BaseException:
            self._runner._control_channel.unregister(flow_run.id)
            raise
        task_status.started(ProcessHandle(process))  # type: ignore[arg-type] # has all that a spawned one has
        await anyio.to_thread.run_sync(process.join)
        await self._tell(flow_run)

    async def _tell(self, flow_run: FlowRun) -> None:
        ended = await self._runner._client.read_flow_run(flow_run.id)
        state = ended.state
        if state is None or state.message == IDLE:
            return
        if state.is_running():
            _say(f"{ended.name}: its process died")
        else:
            _say(f"{ended.name}: {state.name}" + (f" · {state.message}" if state.message else ""))


def _run(environment: dict[str, str]) -> None:
    """In the fork: what `python -m prefect.engine` does."""
    os.environ.update(environment)
    threading.Thread(target=_end_with_the_runner, daemon=True).start()
    try:
        runpy.run_path(prefect.engine.__file__, run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # a fork ends without them, and Prefect hands over its last words there


def _end_with_the_runner() -> None:
    """A run whose runner was killed would go on unseen, and the next runner would begin it anew beside it."""
    parent = multiprocessing.parent_process()
    if parent:
        multiprocessing.connection.wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(END_S)
        os.kill(os.getpid(), signal.SIGKILL)


async def take_up(client: PrefectClient, deployments: Sequence[UUID]) -> int:
    """Begin again what a stack that was killed has left as running; returns how many, with those that were put back.

    Nobody else runs these deployments: they have no work pool, and a Prefect home has one stack.
    """
    mine = FlowRunFilterDeploymentId(any_=list(deployments))
    under_way = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING]))
    put_back = FlowRunFilterState(name=FlowRunFilterStateName(any_=[AWAITING]))
    again: State[None] = AwaitingRetry(message="its process is gone: it is begun again")
    while left := await client.read_flow_runs(flow_run_filter=FlowRunFilter(deployment_id=mine, state=under_way)):
        for run in left:
            await client.set_flow_run_state(run.id, again, force=True)
    return len(await client.read_flow_runs(flow_run_filter=FlowRunFilter(deployment_id=mine, state=put_back)))


async def serve() -> None:
    """Serve the deployments of prefect.yaml until SIGTERM."""
    runner = LocalRunner(name="effects up", pause_on_shutdown=False, query_seconds=POLL_S, limit=None)
    deployments = read_deployments(prefect_yaml())
    ids = [await runner.aadd_deployment(deployment) for deployment in deployments]
    await ensure_automations()
    async with get_client() as client:
        if taken := await take_up(client, ids):
            _say(f"{taken} under way the last time: begun again")
        # For what came while nothing was up; what is begun again may well be the same, and comes first.
        soon: State[None] = Scheduled(
            scheduled_time=datetime.now(UTC) + timedelta(seconds=HEAD_START_S if taken else 0)
        )
        for deployment, deployment_id in zip(deployments, ids, strict=True):
            if deployment.name == SWEEP:
                await client.create_flow_run_from_deployment(deployment_id, state=soon)
    FORKS.set_forkserver_preload([__name__, "prefect.flow_engine", *_modules(deployments)])
    await anyio.to_thread.run_sync(_warm)
    _say(READY)
    await runner.start()


def _modules(deployments: Sequence[RunnerDeployment]) -> set[str]:
    return {str(deployment.entrypoint).rpartition(".")[0] for deployment in deployments}


def _warm() -> None:
    """Have the process that forks import everything before the first run needs it."""
    process = FORKS.Process(target=int)
    process.start()
    process.join()


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody may be left to hear it
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def main() -> None:
    """`python -m deployments.tether deployments.runner`, as `effects up` starts it."""
    asyncio.run(serve())

"""A real worker, killed for real together with its run: another one takes the run up, and nothing is paid twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from deployments.automations import recovery
from tests.conftest import COLLINS, HOPPER
from tests.deployed.conftest import Deployed, search_path, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

    from prefect.client.orchestration import PrefectClient

    from deployments.sandbox.server import Sandbox

WINDOW_S = 15
"""Without a beat: the automations wait for 90, which is too long for a test. A run beats when it begins."""

PREFECT = str(Path(sys.executable).parent / "prefect")

QUEUE = "killed"
"""Of the same pool: what other tests left behind is not run."""


@contextmanager
def _worker(api_url: str, name: str) -> Iterator[subprocess.Popen[bytes]]:
    queue = httpx.post(f"{api_url}/work_pools/effects/queues", json={"name": QUEUE})
    assert queue.is_success or queue.status_code == httpx.codes.CONFLICT
    process = subprocess.Popen(
        [PREFECT, "worker", "start", "--pool", "effects", "--work-queue", QUEUE, "--name", name],
        env={**os.environ, "PATH": search_path(), "PREFECT_API_URL": api_url, "PREFECT_WORKER_QUERY_SECONDS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()  # asked to stop, it would first wait for what it thinks still runs
        process.wait(30)


def _processes_of(run: UUID) -> list[int]:
    """The processes in which a run goes on."""
    mark, found = f"PREFECT__FLOW_RUN_ID={run}".encode(), []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue  # it has ended, or is somebody else's
    return found


@pytest.mark.timeout(240)
async def test_a_worker_is_killed_with_its_run(
    deployed: Deployed, client: PrefectClient, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nobody is left to say that the run died: its beats stop, and then a worker elsewhere finishes it."""
    monkeypatch.setenv("EFFECTS_TARGET", str(tmp_path / "videos"))
    sandbox.knobs.generate_seconds = 8.0
    silent = recovery((await client.read_deployment_by_name("process-inbox/sweep")).id)[0]
    hasty = silent.trigger.model_copy(update={"within": timedelta(seconds=WINDOW_S)})
    impatient = await client.create_automation(silent.model_copy(update={"name": "impatient", "trigger": hasty}))
    deployment = await client.read_deployment_by_name("generate/on-demand")
    asked = {"effect": "hug", "images": [COLLINS, HOPPER]}
    try:
        with _worker(deployed.api_url, "first") as first:
            created = await client.create_flow_run_from_deployment(
                deployment.id, parameters=asked, work_queue_name=QUEUE
            )
            run = created.id

            async def beaten() -> bool:
                told = {
                    "filter": {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [_resource(run)]}}
                }
                events = (await client.request("POST", "/events/filter", json=told)).json()["events"]
                return bool(events) and sandbox.counters.looks >= 2

            await until(beaten, "the run is under way")
            doomed = [first.pid, *_processes_of(run)]
            assert len(doomed) >= 2
            for pid in doomed:
                os.kill(pid, signal.SIGKILL)
        assert (await client.read_flow_run(run)).state_name == "Running"

        async def done() -> bool:
            return (await client.read_flow_run(run)).state_name == "Completed"

        with _worker(deployed.api_url, "second"):
            await until(done, "the run is taken up again and ends", patience_s=120)
    finally:
        await client.delete_automation(impatient)
    states = [state.name for state in await client.read_flow_run_states(run)]
    assert "Crashed" in states
    assert (await client.read_flow_run(run)).run_count == 2
    assert len(list(tmp_path.glob("videos/hug/*/video.mp4"))) == 1
    assert list(sandbox.counters.billed_by_client_request_id.values()) == [1]
    assert sandbox.counters.submissions == 1


def _resource(run: UUID) -> str:
    return f"prefect.flow-run.{run}"

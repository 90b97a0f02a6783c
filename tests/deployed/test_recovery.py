"""A worker, a form that was filled in, and a process that is killed while the video is being made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from prefect.client.schemas.objects import StateType

from tests.conftest import COLLINS, HOPPER
from tests.deployed.conftest import HOUSE, search_path, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

    from deployments.sandbox.server import Sandbox
    from tests.deployed.conftest import Deployed

pytestmark = pytest.mark.timeout(300)
"""The first test waits for the server, and for everything to be deployed."""

QUEUE = "recovery"
"""Of the same pool: what other tests left behind is not run."""


@pytest.fixture
def worker(deployed: Deployed, sandbox: Sandbox, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """As the README starts it, with the sandbox as its provider."""
    httpx.post(f"{deployed.api_url}/work_pools/effects/queues", json={"name": QUEUE}).raise_for_status()
    environment = {
        **os.environ,
        "PATH": search_path(),
        "PREFECT_API_URL": deployed.api_url,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "EFFECTS_API_URL": sandbox.url,
        "EFFECTS_TARGET": str(tmp_path / "videos"),
        "DO_NOT_TRACK": "1",
    }
    command = [str(Path(sys.executable).parent / "prefect"), "worker", "start", "--pool", "effects"]
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--work-queue", QUEUE], env=environment, cwd=HOUSE, stdout=log, stderr=subprocess.STDOUT
        )
        yield process
        process.kill()  # asked to stop, it would first wait for what it thinks still runs
        process.wait(30)


@pytest.mark.usefixtures("worker")
async def test_a_killed_run_goes_on_by_itself_and_pays_once(
    client: PrefectClient, sandbox: Sandbox, tmp_path: Path
) -> None:
    """The same run, with the parameters of the form, in a new process: it finds what was paid for, and waits for it."""
    sandbox.knobs.generate_seconds = 15.0
    deployment = await client.read_deployment_by_name("generate/on-demand")
    asked = await client.create_flow_run_from_deployment(
        deployment.id, parameters={"effect": "hug", "images": [COLLINS, HOPPER]}, work_queue_name=QUEUE
    )

    async def paid() -> FlowRun | None:
        return await client.read_flow_run(asked.id) if sandbox.counters.billed else None

    running = await until(paid, "the video is paid for", patience_s=120)
    assert (running.state_type, running.run_count) == (StateType.RUNNING, 1)
    os.kill(int(str(running.infrastructure_pid).rpartition(":")[2]), signal.SIGKILL)

    async def ended() -> FlowRun | None:
        run = await client.read_flow_run(asked.id)
        return run if run.state and run.state.is_completed() else None

    run = await until(ended, "the run is completed", patience_s=120)
    assert run.run_count == 2
    states = [(state.name, state.message) for state in await client.read_flow_run_states(asked.id)]
    assert "Crashed" in [name for name, _ in states]
    assert ("Scheduled", "its process died: it is taken up again") in states
    assert sandbox.counters.billed == sandbox.counters.submissions == 1
    (video,) = (tmp_path / "videos" / "hug").glob("*/video.mp4")
    assert run.state
    assert run.state.message == str(video)

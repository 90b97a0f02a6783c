"""A Prefect server of its own, with everything deployed to it as the README says."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import httpx
import pytest
import yaml
from prefect import get_client
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.automations import ensure_automations
from deployments.server import _start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from prefect.client.orchestration import PrefectClient

HOUSE = Path(__file__).parents[2]
PREFECT_YAML = HOUSE / "prefect.yaml"
PATIENCE_S = 60.0
DRAIN_S = 10.0


class Deployed(NamedTuple):
    """What was done to the server before the tests.

    Attributes:
        api_url: of the server.
        spec: prefect.yaml.
        without_git: what `prefect deploy --all` printed in a folder that is no clone; it came first.
        output: what it printed in this clone.
        first_ids: of the deployments, after the first time.
        done: what the automations' command said, the first and the second time.
    """

    api_url: str
    spec: dict[str, Any]
    without_git: str
    output: str
    first_ids: dict[str, str]
    done: tuple[list[str], list[str]]


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """The server, twice deployed to: from a folder without git, and from here; then the automations, twice."""
    folder = tmp_path_factory.mktemp("deployed")
    with pytest.MonkeyPatch.context() as environment:
        for name in list(os.environ):
            if name.startswith(("EFFECTS_", "AIMLAPI_", "PREFECT_API", "PREFECT_PROFILE")):
                environment.delenv(name)
        environment.setenv("PREFECT_HOME", str(folder / "prefect"))
        environment.setenv("DO_NOT_TRACK", "1")
        environment.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        server = _start()
        try:
            server.wait()
            prefect("work-pool", "create", "effects", "--type", "process", api_url=server.api_url)
            without_git = prefect("deploy", "--all", api_url=server.api_url, cwd=_copied(folder / "no-clone"))
            first_ids = {name: str(found["id"]) for name, found in _deployments(server.api_url).items()}
            output = prefect("deploy", "--all", api_url=server.api_url)
            with temporary_settings({PREFECT_API_URL: server.api_url}):
                done = (asyncio.run(ensure_automations()), asyncio.run(ensure_automations()))
            spec = yaml.safe_load(PREFECT_YAML.read_text())
            yield Deployed(server.api_url, spec, without_git, output, first_ids, done)
        finally:
            server.stop()


@pytest.fixture
def here(deployed: Deployed) -> Iterator[None]:
    """What a test does with Prefect happens on this server, and nothing of it reaches that of other tests.

    Prefect's worker for events keeps to the server that it met first: it ends with the test.
    """
    EventsWorker.drain_all(timeout=DRAIN_S)
    with temporary_settings({PREFECT_API_URL: deployed.api_url}):
        yield
    EventsWorker.drain_all(timeout=DRAIN_S)


@pytest.fixture
async def client(here: None) -> AsyncIterator[PrefectClient]:
    """Prefect's client."""
    assert here is None
    async with get_client() as connected:
        yield connected


def prefect(*arguments: str, api_url: str, cwd: Path = HOUSE) -> str:
    """The output of a `prefect` command that must succeed."""
    ended = subprocess.run(
        [str(Path(sys.executable).parent / "prefect"), "--no-prompt", *arguments],
        cwd=cwd,
        env={**os.environ, "PATH": search_path(), "PREFECT_API_URL": api_url, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def search_path() -> str:
    """As it is in an activated environment."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def _copied(folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(PREFECT_YAML, folder)
    for name in ("flows", "tasks", "deployments"):
        shutil.copytree(HOUSE / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def _deployments(api_url: str) -> dict[str, dict[str, Any]]:
    flows = {flow["id"]: flow["name"] for flow in httpx.post(f"{api_url}/flows/filter", json={}).json()}
    found = httpx.post(f"{api_url}/deployments/filter", json={}).json()
    return {f"{flows[deployment['flow_id']]}/{deployment['name']}": deployment for deployment in found}


@pytest.fixture
def held(deployed: Deployed) -> dict[str, dict[str, Any]]:
    """The deployments that the server holds, as its API tells them, by flow and name."""
    return _deployments(deployed.api_url)


async def until(true: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:  # noqa: ANN401
    """What a coroutine function comes to, as soon as that is something."""
    give_up = time.monotonic() + patience_s
    while time.monotonic() < give_up:
        if found := await true():
            return found
        await asyncio.sleep(0.3)
    raise AssertionError(f"not within {patience_s:.0f} s: {what}")


async def runs_of(deployment: str, client: PrefectClient, since: str) -> list[dict[str, Any]]:
    """Runs of a deployment that an automation or a person asked for since then, not those of its schedule."""
    found = await client.read_deployment_by_name(deployment)
    answer = await client._client.post(
        "/flow_runs/filter",
        json={
            "deployments": {"id": {"any_": [str(found.id)]}},
            "flow_runs": {"start_time": {"is_null_": None}, "expected_start_time": {"after_": since}},
        },
    )
    return [run for run in answer.json() if run["auto_scheduled"] is False and run["created"] >= since]


async def emit(client: PrefectClient, event: str, resource: dict[str, str], **more: Any) -> None:  # noqa: ANN401
    """An event, as anyone can send it."""
    from prefect.types._datetime import now  # noqa: PLC0415 - Prefect's own clock for events

    body = [{"id": str(uuid4()), "event": event, "occurred": now("UTC").isoformat(), "resource": resource, **more}]
    (await client._client.post("/events", json=body)).raise_for_status()


def spec_name(spec: dict[str, Any]) -> str:
    """Flow and name of a deployment of prefect.yaml: its flow is called as its function, with dashes."""
    return f"{re.sub('_', '-', spec['entrypoint'].rpartition(':')[2])}/{spec['name']}"

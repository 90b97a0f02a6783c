"""What the tests share: a clean environment, real photos, a real S3 protocol, a real Prefect server."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import hypothesis
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from moto.server import ThreadedMotoServer
from prefect.testing.utilities import prefect_test_harness

from deployments.sandbox.server import Sandbox
from tasks.fetch import fetch
from tasks.jobs import Job, Request
from tasks.settings import load_settings
from tasks.validate import validate
from tasks.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# A busy machine is no bug: no example fails for the time it takes. In CI the same examples run every time.
hypothesis.settings.register_profile(
    "house",
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
    derandomize=bool(os.environ.get("CI")),
)
hypothesis.settings.load_profile("house")

PHOTOS = Path(__file__).parents[1] / "deployments" / "photos"
COLLINS, HOPPER, CHELSEA = (str(PHOTOS / name) for name in ("collins.jpg", "hopper.jpg", "chelsea.jpg"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting of the person who runs the tests reaches them, nor does a `.env` of the working directory."""
    for name in list(os.environ):
        if name.startswith(("EFFECTS_", "AIMLAPI_", "FSSPEC_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    MemoryFileSystem.store.clear()


@pytest.fixture(scope="session")
def prefect_api() -> Iterator[str]:
    """Prefect's own server, once a session; gives its API's URL."""
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415 - read inside the harness

    os.environ.pop("PREFECT_API_URL", None)
    with prefect_test_harness(server_startup_timeout=120):
        yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """An S3 server on a free port; gives its URL."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The URL of a new, empty bucket, with credentials in the clouds' own variables."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_endpoint,
        "FSSPEC_S3_ENDPOINT_URL": s3_endpoint,
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"b{abs(hash(request.node.nodeid)):x}"
    boto3.client("s3", endpoint_url=s3_endpoint).create_bucket(Bucket=bucket)
    return f"s3://{bucket}"


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A sandbox provider on a free port, set as the provider; it answers quickly and renders nothing."""
    with Sandbox(render=False, generate_seconds=0.3) as provider:
        for name, value in {
            "EFFECTS_API_URL": provider.url,
            "EFFECTS_API_KEY": "sandbox",
            "EFFECTS_DELIVERY": "inline",
            "EFFECTS_POLL_INTERVAL_S": "0.2",
        }.items():
            monkeypatch.setenv(name, value)
        yield provider


@pytest.fixture
async def workspace(sandbox: Sandbox) -> AsyncIterator[Workspace]:
    """What the steps share, for tests that call their logic without Prefect."""
    assert sandbox.url
    async with open_workspace(load_settings()) as opened:
        yield opened


async def looked_at(workspace: Workspace, effect: str = "hug", *images: str, take: int = 0) -> Request:
    """A job that passed the first two steps."""
    job = Job(effect=effect, images=images or (COLLINS, HOPPER), take=take)
    limit = workspace.catalogue.provider.images.max_bytes
    sources = await fetch(job.images, workspace.scratch, max_bytes=limit, private_hosts=True)
    return await validate(sources, job, catalogue=workspace.catalogue)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Where everything is installed that a test may need, a skipped test is a failed one."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED

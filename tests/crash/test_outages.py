"""What a run stands on goes away or is full: the run lives through it, or the job waits in the ledger."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from deployments.sandbox.server import Sandbox
from tests.crash.aftermath import generate, left_as, resume, show_table, videos
from tests.crash.child import LARGEST_FILE_BYTES, SHORT_PAUSES
from tests.crash.children import children, wait_until
from tests.pauses import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.crash.children import Start

ROWS: list[tuple[str, ...]] = []


def _row(outage: str, said: str, sandbox: Sandbox) -> None:
    ROWS.append((outage, said, str(sandbox.counters.billed), "there"))


@pytest.fixture(scope="module", autouse=True)
def table(request: pytest.FixtureRequest) -> Iterator[None]:
    """What was away, and what it cost."""
    yield
    show_table(request, [("outage", "run said", "billed", "video in the end"), *ROWS])


@pytest.fixture
def start() -> Iterator[Start]:
    """Start children that do not outlive the test."""
    with children() as starter:
        yield starter


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever resumes does not wait for neighbours that are surely dead."""
    shorten(monkeypatch)


def test_a_provider_that_is_down_for_a_while_is_waited_for(
    start: Start, prefect_api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks fail, the wait goes on: the same run ends with the video."""
    provider = Sandbox(render=False, generate_seconds=3.0, state=tmp_path / "provider")
    with provider:
        for name, value in {
            "EFFECTS_API_URL": provider.url,
            "EFFECTS_API_KEY": "sandbox",
            "EFFECTS_DELIVERY": "inline",
            "EFFECTS_POLL_INTERVAL_S": "0.3",
        }.items():
            monkeypatch.setenv(name, value)
        child = generate(start, prefect_api)
        wait_until(lambda: provider.counters.looks >= 1)
    time.sleep(2)
    with provider:
        assert json.loads(child.line())["state"] == "completed"
        assert child.wait() == 0
        assert provider.counters.billed == 1  # its books are kept
        assert provider.counters.submissions == 0
        _row("the provider is away mid-poll for 2 s", "completed", provider)


def test_a_target_that_cannot_be_reached_for_a_while_loses_nothing(
    start: Start, prefect_api: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store goes away while the generation is under way, and comes back: the video is stored then."""
    port = _free_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "EFFECTS_TARGET": "s3://away/videos",
    }.items():
        monkeypatch.setenv(name, value)
    sandbox.knobs.generate_seconds = 3.0
    with _moto(port):
        boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}").create_bucket(Bucket="away")
        child = generate(start, prefect_api)
        wait_until(lambda: sandbox.counters.looks >= 1)
    wait_until(lambda: sandbox.counters.downloads >= 1)
    time.sleep(1)
    with _moto(port):  # moto keeps its buckets in this process
        assert json.loads(child.line())["state"] == "completed"
        assert child.wait() == 0
        found = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}").list_objects_v2(Bucket="away")
        names = {entry["Key"].rpartition("/")[2] for entry in found["Contents"]}
        assert {"video.mp4", "metadata.json"} <= names
    assert sandbox.counters.submissions == 1
    _row("the target is away when the video comes", "completed", sandbox)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 200 kB."""
    if os.geteuid() != 0 or sys.platform != "linux":
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(folder)],  # noqa: S607
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)  # noqa: S607


def test_a_target_that_is_full_keeps_the_job_open(
    disk: Path,
    start: Start,
    prefect_api: str,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The ledger still fits, the video does not: it is told in one line, and with room again it is stored unpaid."""
    monkeypatch.setenv("EFFECTS_TARGET", str(disk))
    monkeypatch.setenv(SHORT_PAUSES, "1")
    sandbox.knobs.generate_seconds = 2.0
    child = generate(start, prefect_api)
    wait_until(lambda: sandbox.counters.looks >= 1)
    _fill(disk)
    document = json.loads(child.line())
    assert child.wait() == 1
    assert document["state"] == "open"
    assert "No space left" in document["reason"]
    assert "Traceback" not in child.errors
    (disk / "filler").unlink()
    assert resume(capsys).state == "completed"
    assert len(videos(disk)) == 1
    assert sandbox.counters.submissions == 1
    _row("the target is full when the video comes", "open", sandbox)


def test_a_file_that_does_not_fit_keeps_the_job_open(
    start: Start, prefect_api: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same under a quota, for which nobody needs to be root: the video is larger than any file may be."""
    sandbox.knobs.render = True
    child = generate(start, prefect_api, **{SHORT_PAUSES: "1", LARGEST_FILE_BYTES: "80000"})
    document = json.loads(child.line())
    assert (child.wait(), document["state"]) == (1, "open")
    assert "File too large" in document["reason"]
    assert "Traceback" not in child.errors
    assert videos() == []
    assert resume(capsys).state == "completed"
    assert len(videos()) == 1
    assert sandbox.counters.submissions == 1
    _row("the video is larger than any file may be", "open", sandbox)


def test_a_target_that_is_full_from_the_beginning_costs_nothing(
    disk: Path,
    start: Start,
    prefect_api: str,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What cannot be claimed is not sent; with room again, the same command makes it."""
    monkeypatch.setenv("EFFECTS_TARGET", str(disk))
    _fill(disk, left_kb=4)  # the note fits, the claim does not
    child = generate(start, prefect_api)
    document = json.loads(child.line())
    assert (child.wait(), sandbox.counters.submissions) == (1, 0), document
    assert "Traceback" not in child.errors
    (disk / "filler").unlink()
    child = generate(start, prefect_api)
    assert json.loads(child.line())["state"] == "completed"
    assert len(videos(disk)) == 1
    assert sandbox.counters.submissions == 1
    _row("the target is full from the beginning", document["state"], sandbox)


def _fill(disk: Path, left_kb: int = 0) -> None:
    with (disk / "filler").open("wb") as filler:
        try:
            while shutil.disk_usage(disk).free > left_kb * 1024:
                filler.write(b"\0" * 4096)
                filler.flush()
        except OSError:
            return


@pytest.fixture(scope="module", autouse=True)
def doomed_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A Prefect server of its own, to be killed; it starts while the other tests run."""
    folder, port = tmp_path_factory.mktemp("doomed"), _free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PREFECT_HOME": str(folder), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=folder,
    )
    yield f"http://127.0.0.1:{port}/api", process
    if process.poll() is None:
        process.kill()
        process.wait(10)


def test_a_prefect_server_that_is_killed_costs_no_second_video(
    doomed_api: tuple[str, subprocess.Popen[bytes]],
    start: Start,
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The run ends in one line, without a traceback; the ledger has the job, and any other server resumes it."""
    api, server = doomed_api
    wait_until(lambda: _answers(f"{api}/health"), 60)
    sandbox.knobs.generate_seconds = 3.0
    child = generate(start, api, PREFECT_CLIENT_MAX_RETRIES="0")
    wait_until(lambda: sandbox.counters.looks >= 1)
    server.kill()
    document = json.loads(child.line())
    assert (child.wait(), document["state"]) == (1, "open")
    assert "went away during the run" in document["reason"]
    assert "Traceback" not in child.errors
    if left_as(capsys) != "completed":
        assert resume(capsys).state == "completed"
    assert len(videos()) == 1
    assert sandbox.counters.submissions == 1
    _row("Prefect's server is killed mid-poll", "open", sandbox)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).is_success
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _moto(port: int) -> Iterator[None]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    try:
        yield
    finally:
        server.stop()

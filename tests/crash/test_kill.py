"""Real processes, killed for real at every stage boundary, and what is left of them: the promise, counted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from deployments.cli import main
from deployments.sandbox.faults import Fault
from deployments.sandbox.server import Sandbox
from tasks.jobs import Outcome, Summary, now
from tasks.ledger import ClaimDocument
from tests.conftest import COLLINS, HOPPER
from tests.crash.child import HOLDS, LARGEST_FILE_BYTES, SHORT_PAUSES
from tests.crash.children import children, wait_until
from tests.crash.conftest import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.crash.children import Child, Start

CHILD = "tests.crash.child"
TARGET = Path("videos")

STAGES = (
    "before claim",
    "after claim, before POST",
    "POST in flight",
    "after answer, before generation.json",
    "mid-poll",
    "mid-poll, the Prefect server",
    "mid-download",
    "after video.mp4, before metadata.json",
    "after metadata.json, before _open is removed",
)
"""A job's life, in the order of the table."""


@dataclass(frozen=True)
class Row:
    """One line of the table that is printed at the end."""

    stage: str
    killed: str
    left_as: str
    billed: int
    video: str


ROWS: list[Row] = []


@pytest.fixture(scope="module", autouse=True)
def table(request: pytest.FixtureRequest) -> Iterator[None]:
    """What was killed where, and what it cost."""
    yield
    rows = [
        (row.stage, row.killed, row.left_as, str(row.billed), row.video)
        for row in sorted(ROWS, key=lambda row: STAGES.index(row.stage))
    ]
    head = ("stage", "killed", "left as", "billed", "video after resume")
    lines = [
        f"{stage:<46}{killed:<9}{left:<11}{billed:<8}{video}" for stage, killed, left, billed, video in (head, *rows)
    ]
    request.config.stash.setdefault(TABLES, []).append("\n".join(lines))


@pytest.fixture
def start() -> Iterator[Start]:
    """Start children that do not outlive the test."""
    with children() as starter:
        yield starter


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever resumes does not wait for neighbours that are surely dead."""
    for name, value in {"NEIGHBOUR_S": 0.3, "NEIGHBOUR_LOOK_S": 0.05, "RECONCILE_PAUSES_S": (0.0, 0.1)}.items():
        monkeypatch.setattr(f"tasks.reconcile.{name}", value)


def _generate(start: Start, prefect_api: str, stage: str = "to the end", **variables: str) -> Child:
    return start(CHILD, stage, "hug", COLLINS, HOPPER, PREFECT_API_URL=prefect_api, **variables)


def _left_as(capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["status", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 1
    return str(rows[0]["state"])


def _resume(capsys: pytest.CaptureFixture[str], *options: str) -> Outcome:
    main(["resume", "--json", *options])
    summary = Summary.model_validate_json(capsys.readouterr().out)
    assert len(summary.rows) == 1
    return summary.rows[0]


def _paid_once(sandbox: Sandbox) -> bool:
    return set(sandbox.counters.billed_by_client_request_id.values()) <= {1} and sandbox.counters.billed <= 1


def _videos() -> list[Path]:
    return [path for path in TARGET.rglob("video.mp4") if path.stat().st_size > 0]


@contextmanager
def _tabled(stage: str, child: Child, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    """Kill the child, and write a line of the table when the job was resumed."""
    code = child.kill()
    assert code == -signal.SIGKILL
    left_as = _left_as(capsys)
    yield left_as
    video = "there" if _videos() and not list(TARGET.glob("_open/*")) else "missing"
    ROWS.append(Row(stage, "SIGKILL", left_as, sandbox.counters.billed, video))


@pytest.mark.parametrize(
    ("stage", "left_as"),
    [
        ("before claim", "deferred"),
        ("after answer, before generation.json", "unknown"),
        ("after video.mp4, before metadata.json", "open"),
        ("after metadata.json, before _open is removed", "completed"),
    ],
)
def test_killed_between_two_writes(
    stage: str,
    left_as: str,
    start: Start,
    prefect_api: str,
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever resumes ends with the video, and it is paid for once."""
    child = _generate(start, prefect_api, stage)
    assert child.line() == f"AT {stage}"
    with _tabled(stage, child, sandbox, capsys) as left:
        assert left == left_as
        outcome = _resume(capsys)
        assert outcome.state == ("reused" if left_as == "completed" else "completed")
    assert len(_videos()) == 1
    assert sandbox.counters.billed == 1
    assert _paid_once(sandbox)


def test_killed_between_the_claim_and_the_post(
    start: Start, prefect_api: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody can tell this from a lost answer: it is unknown until a person allows another submission."""
    stage = "after claim, before POST"
    assert stage in HOLDS
    child = _generate(start, prefect_api, stage)
    assert child.line() == f"AT {stage}"
    with _tabled(stage, child, sandbox, capsys) as left:
        assert left == "unknown"
        assert _resume(capsys).state == "unknown"
        assert sandbox.counters.submissions == 0
        (path,) = TARGET.glob("hug/*/attempts/1/claim.json")
        claim = ClaimDocument.model_validate_json(path.read_bytes())
        path.write_text(claim.model_copy(update={"at": now() - timedelta(minutes=20)}).model_dump_json())
        os.utime(path, (time.time() - 20 * 60,) * 2)
        outcome = _resume(capsys, "--resubmit-unknown")
        assert (outcome.state, outcome.attempt) == ("completed", 2)
    assert sandbox.counters.billed == 1


def test_killed_while_the_post_is_in_flight(
    start: Start, prefect_api: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """The provider has accepted it, its answer never arrives: the log has it."""
    sandbox.knobs.faults = [Fault(kind="slow", route="submit", when="after", seconds=60)]
    child = _generate(start, prefect_api)
    wait_until(lambda: sandbox.counters.billed == 1)
    with _tabled("POST in flight", child, sandbox, capsys) as left:
        assert left == "unknown"
        sandbox.knobs.faults = []
        assert _resume(capsys).state == "completed"
    assert sandbox.counters.submissions == 1


def test_killed_while_it_waits_for_the_video(
    start: Start, prefect_api: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """The provider's id is kept: somebody else goes on waiting."""
    sandbox.knobs.generate_seconds = 3.0
    child = _generate(start, prefect_api)
    wait_until(lambda: sandbox.counters.looks >= 2)
    with _tabled("mid-poll", child, sandbox, capsys) as left:
        assert left == "open"
        assert _resume(capsys).state == "completed"
    assert sandbox.counters.submissions == 1


def test_killed_while_it_downloads(
    start: Start, prefect_api: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """What half there is of it lies in a scratch folder, never in the target."""
    sandbox.knobs.faults = [Fault(kind="slow", route="cdn", seconds=60)]
    child = _generate(start, prefect_api)
    wait_until(lambda: sandbox.counters.downloads >= 1)
    with _tabled("mid-download", child, sandbox, capsys) as left:
        assert left == "open"
        assert _videos() == []
        sandbox.knobs.faults = []
        assert _resume(capsys).state == "completed"
    assert sandbox.counters.submissions == 1


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
        child = _generate(start, prefect_api)
        wait_until(lambda: provider.counters.looks >= 1)
    time.sleep(2)
    with provider:
        assert json.loads(child.line())["state"] == "completed"
        assert child.wait() == 0
        assert provider.counters.billed == 1  # its books are kept
        assert provider.counters.submissions == 0


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
        child = _generate(start, prefect_api)
        wait_until(lambda: sandbox.counters.looks >= 1)
    wait_until(lambda: sandbox.counters.downloads >= 1)
    time.sleep(1)
    with _moto(port):  # moto keeps its buckets in this process
        assert json.loads(child.line())["state"] == "completed"
        assert child.wait() == 0
        found = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}").list_objects_v2(Bucket="away")
        names = {entry["Key"].rpartition("/")[2] for entry in found["Contents"]}
        assert {"video.mp4", "metadata.json"} <= names
    assert sandbox.counters.billed == 1


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
    child = _generate(start, prefect_api)
    wait_until(lambda: sandbox.counters.looks >= 1)
    _fill(disk)
    document = json.loads(child.line())
    assert child.wait() == 1
    assert document["state"] == "open"
    assert "No space left" in document["reason"]
    assert "Traceback" not in child.errors
    (disk / "filler").unlink()
    assert _resume(capsys).state == "completed"
    assert sandbox.counters.submissions == 1


def test_a_file_that_does_not_fit_keeps_the_job_open(
    start: Start, prefect_api: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same under a quota, for which nobody needs to be root: the video is larger than any file may be."""
    sandbox.knobs.render = True
    child = _generate(start, prefect_api, **{SHORT_PAUSES: "1", LARGEST_FILE_BYTES: "80000"})
    document = json.loads(child.line())
    assert (child.wait(), document["state"]) == (1, "open")
    assert "File too large" in document["reason"], document
    assert "Traceback" not in child.errors
    assert _videos() == []
    assert _resume(capsys).state == "completed"
    assert sandbox.counters.submissions == 1


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
    child = _generate(start, prefect_api)
    document = json.loads(child.line())
    assert (child.wait(), sandbox.counters.submissions) == (1, 0), document
    assert "Traceback" not in child.errors
    (disk / "filler").unlink()
    child = _generate(start, prefect_api)
    assert json.loads(child.line())["state"] == "completed"
    assert sandbox.counters.billed == 1


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
    child = _generate(start, api, PREFECT_CLIENT_MAX_RETRIES="0")
    wait_until(lambda: sandbox.counters.looks >= 1)
    server.kill()
    document = json.loads(child.line())
    assert (child.wait(), document["state"]) == (1, "open")
    assert "went away during the run" in document["reason"]
    assert "Traceback" not in child.errors
    left_as = _left_as(capsys)
    if left_as != "completed":
        assert _resume(capsys).state == "completed"
    ROWS.append(Row("mid-poll, the Prefect server", "SIGKILL", left_as, sandbox.counters.billed, "there"))
    assert len(_videos()) == 1
    assert sandbox.counters.submissions == 1


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

"""Real processes, killed for real at every stage boundary, and what is left of them: the promise, counted."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from deployments.sandbox.faults import Fault
from tasks.jobs import now
from tasks.ledger import ClaimDocument
from tests.crash.aftermath import TARGET, generate, left_as, resume, show_table, videos
from tests.crash.child import HOLDS
from tests.crash.children import children, wait_until
from tests.pauses import shorten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments.sandbox.server import Sandbox
    from tests.crash.children import Child, Start

STAGES = (
    "before claim",
    "after claim, before POST",
    "POST in flight",
    "after answer, before generation.json",
    "mid-poll",
    "mid-download",
    "after video.mp4, before metadata.json",
    "after metadata.json, before _open is removed",
)
"""A job's life, in the order of the table."""

ROWS: dict[str, tuple[str, ...]] = {}


@pytest.fixture(scope="module", autouse=True)
def table(request: pytest.FixtureRequest) -> Iterator[None]:
    """What was killed where, and what it cost."""
    yield
    head = ("stage", "killed", "left as", "billed", "video after resume")
    show_table(request, [head, *(ROWS[stage] for stage in STAGES if stage in ROWS)])


@pytest.fixture
def start() -> Iterator[Start]:
    """Start children that do not outlive the test."""
    with children() as starter:
        yield starter


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever resumes does not wait for neighbours that are surely dead."""
    shorten(monkeypatch)


def _paid_once(sandbox: Sandbox) -> bool:
    return sandbox.counters.billed == 1 and set(sandbox.counters.billed_by_client_request_id.values()) == {1}


@contextmanager
def _killed(stage: str, child: Child, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    """Kill the child; gives what the ledger then says. On leaving, when the job was resumed, the table has its line."""
    assert child.kill() == -signal.SIGKILL
    left = left_as(capsys)
    yield left
    assert len(videos()) == 1
    assert not list(TARGET.glob("_open/*"))
    assert _paid_once(sandbox)
    ROWS[stage] = (stage, "SIGKILL", left, str(sandbox.counters.billed), "there")


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("before claim", "deferred"),
        ("after answer, before generation.json", "unknown"),
        ("after video.mp4, before metadata.json", "open"),
        ("after metadata.json, before _open is removed", "completed"),
    ],
)
def test_killed_between_two_writes(
    stage: str,
    expected: str,
    start: Start,
    prefect_api: str,
    sandbox: Sandbox,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whoever resumes ends with the video, and it is paid for once."""
    child = generate(start, prefect_api, stage)
    assert child.line() == f"AT {stage}"
    with _killed(stage, child, sandbox, capsys) as left:
        assert left == expected
        assert resume(capsys).state == ("reused" if expected == "completed" else "completed")
    assert sandbox.counters.submissions == 1


def test_killed_between_the_claim_and_the_post(
    start: Start, prefect_api: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody can tell this from a lost answer: it is unknown until a person allows another submission."""
    stage = "after claim, before POST"
    assert stage in HOLDS
    child = generate(start, prefect_api, stage)
    assert child.line() == f"AT {stage}"
    with _killed(stage, child, sandbox, capsys) as left:
        assert left == "unknown"
        assert resume(capsys).state == "unknown"
        assert sandbox.counters.submissions == 0
        (path,) = TARGET.glob("hug/*/attempts/1/claim.json")
        claim = ClaimDocument.model_validate_json(path.read_bytes())
        path.write_text(claim.model_copy(update={"at": now() - timedelta(minutes=20)}).model_dump_json())
        os.utime(path, (time.time() - 20 * 60,) * 2)
        outcome = resume(capsys, "--resubmit-unknown")
        assert (outcome.state, outcome.attempt) == ("completed", 2)


def test_killed_while_the_post_is_in_flight(
    start: Start, prefect_api: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """The provider has accepted it, its answer never arrives: the log has it."""
    sandbox.knobs.faults = [Fault(kind="slow", route="submit", when="after", seconds=60)]
    child = generate(start, prefect_api)
    wait_until(lambda: sandbox.counters.billed == 1)
    with _killed("POST in flight", child, sandbox, capsys) as left:
        assert left == "unknown"
        sandbox.knobs.faults = []
        assert resume(capsys).state == "completed"
    assert sandbox.counters.submissions == 1


def test_killed_while_it_waits_for_the_video(
    start: Start, prefect_api: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """The provider's id is kept: somebody else goes on waiting."""
    sandbox.knobs.generate_seconds = 3.0
    child = generate(start, prefect_api)
    wait_until(lambda: sandbox.counters.looks >= 2)
    with _killed("mid-poll", child, sandbox, capsys) as left:
        assert left == "open"
        assert resume(capsys).state == "completed"
    assert sandbox.counters.submissions == 1


def test_killed_while_it_downloads(
    start: Start, prefect_api: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """What half there is of it lies in a scratch folder, never in the target."""
    sandbox.knobs.faults = [Fault(kind="slow", route="cdn", seconds=60)]
    child = generate(start, prefect_api)
    wait_until(lambda: sandbox.counters.downloads >= 1)
    with _killed("mid-download", child, sandbox, capsys) as left:
        assert left == "open"
        assert videos() == []
        sandbox.knobs.faults = []
        assert resume(capsys).state == "completed"
    assert sandbox.counters.submissions == 1

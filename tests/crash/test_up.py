"""A real `effects up`, whose processes are killed for real one by one: it mends itself, and nothing is paid twice."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.local_stack import LocalStack, eventually, local_stack

if TYPE_CHECKING:
    from collections.abc import Iterator

GENERATE_S = 5.0
"""Long enough to be killed meanwhile."""

RUN, RUNNER, SERVER, LISTENER = "forkserver", "deployments.runner", "deployments.server", "deployments.uploads"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """One for all: each test leaves it up."""
    with local_stack(tmp_path_factory.mktemp("up")) as started:
        started.start()
        started.turn(generate_seconds=GENERATE_S)
        started.rest()
        yield started


@pytest.fixture
def mid_poll(stack: LocalStack, request: pytest.FixtureRequest) -> str:
    """An upload whose generation is paid for, and under way; its folder's name."""
    name, looks = str(request.node.name).removeprefix("test_"), stack.counters()["looks"]
    # Another take each time: else it would be the same job, whose video is there already.
    stack.drop(name, take=len(stack.videos()))
    eventually(lambda: stack.counters()["looks"] >= looks + 2, stack)
    eventually(lambda: _run(stack, name).get("state_name") == "Running", stack)
    return name


def _run(stack: LocalStack, name: str) -> dict[str, Any]:
    return next((run for run in stack.runs() if run["name"] == f"inbox · hug/{name}"), {})


def _ends_well(stack: LocalStack, name: str, *, begun: int) -> None:
    """The same run goes on to its end, begun so often, and the video is there; nothing was paid for twice."""
    eventually(lambda: _run(stack, name).get("state_type") == "COMPLETED", stack)
    assert _run(stack, name)["run_count"] == begun
    billed = stack.counters()["billed_by_client_request_id"]
    assert len(stack.videos()) == len(billed)
    assert set(billed.values()) == {1}


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_the_process_of_a_run(stack: LocalStack, mid_poll: str) -> None:
    """The runner sees it at once; the automation has the run begun again."""
    (_, run) = sorted(pid for pid, command in stack.processes().items() if RUN in command)
    _kill(run)
    _ends_well(stack, mid_poll, begun=2)
    assert "its process died" in stack.told


def test_the_runner(stack: LocalStack, mid_poll: str) -> None:
    """It is started again, and begins again what it had left."""
    runner = stack.one(RUNNER)
    _kill(runner)
    _ends_well(stack, mid_poll, begun=2)
    assert stack.one(RUNNER) != runner


def test_the_server(stack: LocalStack, mid_poll: str) -> None:
    """It is started again; runs do not notice, since their requests wait for it."""
    _kill(stack.one(SERVER))
    _ends_well(stack, mid_poll, begun=1)


def test_the_upload_listener(stack: LocalStack) -> None:
    """It is started again, and listens."""
    _kill(stack.one(LISTENER))
    eventually(lambda: stack.log.count("uploads: watching") == 2, stack)
    stack.drop("afterwards", take=len(stack.videos()))
    _ends_well(stack, "afterwards", begun=1)


def test_the_stack_itself(stack: LocalStack, mid_poll: str) -> None:
    """All its processes end by themselves; the next start goes on with what was under way."""
    _kill(stack.pid)
    eventually(lambda: stack.processes() == {}, stack)
    stack.start()
    _ends_well(stack, mid_poll, begun=2)


def test_a_part_that_cannot_live(stack: LocalStack) -> None:
    """It is not started again for ever: the stack ends with a line that says which part it was, and nothing is left."""
    again = "the upload listener ended with code -9: it is started again"
    for times in range(1, 4):
        _kill(stack.one(LISTENER))
        eventually(lambda times=times: stack.told.count(again) == times, stack)  # type: ignore[misc]
    _kill(stack.one(LISTENER))
    eventually(lambda: stack.processes() == {}, stack)
    assert "effects: the upload listener ends again and again" in stack.told

"""How long an upload waits: photos dropped into the inbox of a real `effects up`, one pair after the other.

What is counted begins with the event of the upload and ends with the first task run that is Running, as the server
has them both. That the listener waits for three quiet seconds before it tells, so that photos are whole, comes before.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.stage import spread
from tests.local_stack import LocalStack, eventually, local_stack

if TYPE_CHECKING:
    from collections.abc import Iterable

UPLOADS = 15
PAUSE_S = 1.0


def measure(stack: LocalStack, name: str) -> dict[str, float]:
    """Seconds from the event of one upload to each step of its run."""
    stack.drop(name)
    dropped = time.time()
    eventually(lambda: bool(stack.videos()), stack)  # asks nothing of the server
    eventually(lambda: bool(_run(stack, name)), stack)
    run = _run(stack, name)
    told = _at(_event(stack, name)["occurred"])
    states = {
        state["name"]: _at(state["timestamp"]) for state in stack.api(f"/flow_run_states/?flow_run_id={run['id']}")
    }
    tasks = stack.api("/task_runs/filter", {"flow_runs": {"id": {"any_": [run["id"]]}}})
    first = min(_at(task["start_time"]) for task in tasks if task["start_time"])
    return {
        "run created": states["Scheduled"] - told,
        "taken by the runner": states["Pending"] - told,
        "flow running": states["Running"] - told,
        "first task running": first - told,
        "since the photos were dropped": first - dropped,
    }


def main(uploads: int = UPLOADS) -> None:
    """Print the table: minimum, median and maximum."""
    with tempfile.TemporaryDirectory() as scratch, local_stack(Path(scratch)) as stack:
        stack.start()
        stack.turn(generate_seconds=0.1)
        stack.rest()
        measured = []
        for upload in range(uploads):
            measured.append(measure(stack, f"upload-{upload}"))
            shutil.rmtree(stack.target / "hug")  # else its video is there already
            time.sleep(PAUSE_S)
        stack.stop()
    sys.stdout.write(f"{uploads} uploads, seconds from the event: minimum / median / maximum\n")
    for step in measured[0]:
        sys.stdout.write(f"{step:>30}  {spread([each[step] for each in measured])}\n")


def _run(stack: LocalStack, name: str) -> dict[str, Any]:
    """The flow run of an upload, once it is over and its task runs are written down."""
    for run in stack.runs():
        if run["name"] == f"inbox · hug/{name}" and run["state_type"] == "COMPLETED":
            tasks = {"flow_runs": {"id": {"any_": [run["id"]]}}}
            if any(task["start_time"] for task in stack.api("/task_runs/filter", tasks)):
                return run
    return {}


def _event(stack: LocalStack, name: str) -> dict[str, Any]:
    wanted = {"filter": {"event": {"name": ["effects.upload"]}}, "limit": 50}
    events: Iterable[dict[str, Any]] = stack.api("/events/filter", wanted)["events"]
    return next(event for event in events if event["payload"]["folders"] == [f"hug/{name}"])


def _at(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

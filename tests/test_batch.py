"""Many videos from a manifest: every row accounted for, nothing paid for twice."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from rich.console import Console

import flows.batch
from deployments.batch import BatchProgress
from deployments.cli import main
from deployments.sandbox.faults import Fault
from flows.batch import generate_batch
from flows.outcomes import carried
from tasks.jobs import BatchSummary, RowOutcome
from tasks.visibility import watched
from tests.conftest import CHELSEA, COLLINS, HOPPER
from tests.crash.children import HOUSE, wait_until

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox
    from tasks.workspace import Workspace

pytestmark = pytest.mark.usefixtures("prefect_api")

KEYS = ["state", "job_id", "effect", "generation_id", "attempt", "video", "metadata", "cost_usd", "seconds", "reason"]


def _manifest(rows: list[dict[str, object]], name: str = "jobs.jsonl") -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def _squish(take: int, **more: object) -> dict[str, object]:
    return {"effect": "squish", "images": [CHELSEA], "take": take, "name": f"cat {take}", **more}


async def _run(manifest: str, **changes: object) -> BatchSummary:
    run: Any = generate_batch
    return carried(await run(manifest, **changes, return_state=True), BatchSummary)


@pytest.mark.timeout(240)
async def test_two_hundred_rows_are_all_accounted_for(sandbox: Sandbox) -> None:
    """20 bad rows, 10 that ask for the same again, a provider that fails one in ten: the counts sum to 200."""
    good = [_squish(take) for take in range(170)]
    bad: list[dict[str, object]] = [{"effect": "squash", "images": [CHELSEA]} for _ in range(10)]
    bad += [{"effect": "hug", "images": [COLLINS]} for _ in range(5)]
    bad += [_squish(0, duration=7) for _ in range(5)]
    again = [_squish(take) for take in range(10)]
    sandbox.knobs.balance_usd = 1000.0
    sandbox.knobs.faults = [Fault(kind="error_text", rate=0.1)]
    sandbox.knobs.seed = 1
    summary = await _run(_manifest(good + bad + again))
    assert sum(summary.counts.values()) == len(summary.rows) == 200
    assert [row.row for row in summary.rows] == list(range(1, 201))
    assert summary.counts["rejected"] == 20
    wanted, repeated = summary.rows[:170], summary.rows[190:]
    assert {row.state for row in wanted} <= {"completed", "failed"}
    assert sum(row.state == "completed" for row in wanted) > 150
    assert [row.state for row in repeated] == ["reused" if row.video else "failed" for row in wanted[:10]]
    assert max(sandbox.counters.billed_by_client_request_id.values()) == 1
    videos = {row.job_id for row in summary.rows if row.video}
    paid_and_made = {g.order.client_request_id for g in sandbox.book if g.outcome == "video"}
    assert len(paid_and_made) == len(videos)
    assert summary.cost_usd == pytest.approx(0.515 * len(videos), abs=0.01)


async def test_no_more_jobs_are_under_way_than_allowed(sandbox: Sandbox) -> None:
    """`max_in_flight` is kept, and used."""
    sandbox.knobs.generate_seconds = 1.0
    summary = await _run(_manifest([_squish(take) for take in range(12)]), max_in_flight=4)
    assert summary.counts == {"completed": 12}
    assert sandbox.counters.peak_open == 4


async def test_account_trouble_stops_the_rest_and_a_later_run_goes_on(sandbox: Sandbox) -> None:
    """Out of credits after a few: the others are deferred, none is lost, none is paid for twice."""
    manifest = _manifest([_squish(take) for take in range(12)])
    sandbox.knobs.balance_usd = 1.6
    first = await _run(manifest, max_in_flight=1)
    assert first.counts == {"deferred": 9, "completed": 3}
    assert sandbox.counters.submissions == 4
    sandbox.knobs.balance_usd = 50.0
    second = await _run(manifest)
    assert second.counts == {"completed": 9, "reused": 3}
    assert sandbox.counters.billed == 12


async def test_the_budget_is_kept_with_many_at_once(sandbox: Sandbox) -> None:
    """$2.10 buys four videos of $0.515, however many are under way."""
    summary = await _run(_manifest([_squish(take) for take in range(10)]), budget_usd=2.1)
    assert summary.counts == {"deferred": 6, "completed": 4}
    assert sandbox.counters.billed == 4
    assert summary.cost_usd == pytest.approx(2.06)


async def test_the_dashboard_shows_progress_a_table_and_posters(sandbox: Sandbox, prefect_api: str) -> None:
    """Artifacts: the progress that moved, a row for each row, the posters; task runs are named after the rows."""
    rows: list[dict[str, object]] = [
        _squish(1) | {"name": "Friday cat"},
        {"effect": "hug", "images": [COLLINS, HOPPER], "name": "crew | *both*"},
    ]
    rows.append({"effect": "hug", "images": [COLLINS], "name": "alone"})
    state = await generate_batch(_manifest(rows), return_state=True)
    assert sandbox.counters.billed == 2
    assert state.name == "Failed"
    assert state.message == "2 completed, 1 rejected"
    run_id = str(state.state_details.flow_run_id)
    wanted = {"flow_runs": {"id": {"any_": [run_id]}}}
    async with httpx.AsyncClient(base_url=prefect_api) as api:
        artifacts = {a["type"]: a for a in (await api.post("/artifacts/filter", json=wanted)).json()}
        for _ in range(50):
            names = {run["name"] for run in (await api.post("/task_runs/filter", json=wanted)).json()}
            if len(names) >= 10:
                break
            await asyncio.sleep(0.2)
    assert artifacts["progress"]["data"] == 100.0
    table = json.loads(artifacts["table"]["data"])
    assert [(row["name"], row["state"]) for row in table] == [
        ("Friday cat", "completed"),
        ("crew | *both*", "completed"),
        ("alone", "rejected"),
    ]
    target = str(Path("videos").absolute())
    assert artifacts["table"]["description"] == f"2 completed, 1 rejected; $1.03 in this run; videos in {target}"
    assert (Path(target) / table[1]["video"]).is_file()
    assert "hug needs two images" in table[2]["video"]
    assert artifacts["progress"]["description"] == "3 of 3 rows"
    assert artifacts["markdown"]["data"].count("data:image/jpeg;base64,") == 2
    assert r"crew \| \*both\* |" in artifacts["markdown"]["data"]
    assert {"poll Friday cat", "submit crew | *both*", "persist Friday cat"} <= names


def test_the_command_prints_one_document(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, cost, and a row for each row with its name; bad rows are told with their numbers before anything."""
    manifest = _manifest([_squish(0), {"effect": "hug", "images": [COLLINS], "name": "alone"}])
    assert main(["batch", manifest, "--json"]) == 2
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert list(document) == ["counts", "cost_usd", "rows"]
    assert document["counts"] == {"completed": 1, "rejected": 1}
    assert set(document["rows"][0]) == {*KEYS, "name", "row"}
    assert "row 2: hug needs two images" in told.err
    assert sandbox.counters.billed == 1


def test_a_dry_run_prints_the_table_and_sends_nothing(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """Videos, price each, sum, reused; the same job twice is one video."""
    manifest = _manifest(
        [_squish(0), _squish(1), _squish(1), {"effect": "hug", "images": [COLLINS, HOPPER], "duration": 10}]
    )
    assert main(["generate", "squish", CHELSEA]) == 0
    capsys.readouterr()
    assert main(["batch", manifest, "--dry-run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["hug", "1", "$1.03", "$1.03", "0"] in lines
    assert ["squish", "1", "$0.52", "$0.52", "2"] in lines
    assert ["2", "$1.54"] in lines
    assert sandbox.counters.billed == 1


@pytest.mark.parametrize(("name", "content", "word"), [("gone.jsonl", None, "gone.jsonl"), ("empty.csv", "", "empty")])
def test_a_manifest_that_cannot_be_read_is_bad_input(
    name: str, content: str | None, word: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 2."""
    if content is not None:
        Path(name).write_text(content)
    assert main(["batch", name, "--dry-run"]) == 2
    assert word in capsys.readouterr().err
    assert sandbox.counters.submissions == 0


WHAT_IS_LEFT = """
import asyncio, collections, gc, sys
from flows.batch import generate_batch

async def run():
    state = await generate_batch(sys.argv[1], max_in_flight=3, return_state=True)
    gc.collect()
    alive = collections.Counter(type(thing).__name__ for thing in gc.get_objects())
    print(state.message, [alive[name] for name in ("RowOutcome", "Row", "Job", "Request", "Generation", "Record")])

asyncio.run(run())
"""


def test_nothing_is_kept_of_a_row_that_has_ended_but_its_outcome(sandbox: Sandbox, prefect_api: str) -> None:
    """Neither by the flow nor by Prefect: memory must not grow with what was done."""
    ended = subprocess.run(
        [sys.executable, "-c", WHAT_IS_LEFT, _manifest([_squish(take) for take in range(30)])],
        env={**os.environ, "PREFECT_API_URL": prefect_api, "PYTHONPATH": str(HOUSE)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    message, _, left = ended.stdout.partition(" [")
    assert message == "30 completed", ended.stderr[-2000:]
    outcomes, *others = map(int, left.strip("]\n").split(", "))
    assert outcomes == 30
    assert max(others) <= 3  # the last ones may still be in somebody's hands
    assert sandbox.counters.billed == 30


async def test_a_row_may_change_between_the_check_and_its_turn(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest is read twice, and each row is checked each time: nothing is submitted unseen."""
    manifest = _manifest([_squish(0), _squish(1)])
    checked = flows.batch.check_rows

    async def check_and_change(manifest: str, workspace: Workspace) -> int:
        count = await checked(manifest, workspace)
        _manifest([_squish(0), _squish(1, duration=7)])
        return count

    monkeypatch.setattr(flows.batch, "check_rows", check_and_change)
    summary = await _run(manifest)
    assert summary.counts == {"completed": 1, "rejected": 1}
    assert sandbox.counters.billed == 1


async def test_the_account_is_reckoned_with(sandbox: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """Where the balance fell by more than the run committed, it says so; failed generations are no reason to."""
    sandbox.knobs.faults = [Fault(kind="error_text", rate=0.5)]
    await _run(_manifest([_squish(take) for take in range(6)]))
    assert "balance fell" not in caplog.text
    sandbox.knobs.faults, billed = [], sandbox.counters.billed
    sandbox.knobs.generate_seconds = 1.0
    manifest = _manifest([_squish(10)])
    run = asyncio.ensure_future(_run(manifest))
    await asyncio.to_thread(wait_until, lambda: sandbox.counters.billed > billed)
    sandbox.knobs.balance_usd -= 5.0  # somebody else spends
    await run
    assert "the account's balance fell by $" in caplog.text


def test_a_terminal_shows_how_far_it_is_and_when_it_ends() -> None:
    """One line of figures that moves; what was done stands there when it is stopped."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=160)
    with contextlib.suppress(KeyboardInterrupt), BatchProgress(console) as progress:
        watched.info("4 rows", extra={"rows": 4})
        for number in range(3):
            watched.info("begun", extra={"begun": number})
        outcome = RowOutcome(state="completed", effect="hug", name="a", row=1, cost_usd=0.515)
        logging.getLogger("effects").info("completed", extra={"batch": (1, 4, outcome)})
        console.print(progress._table())
        raise KeyboardInterrupt
    shown = screen.getvalue()
    titles = ("done", "in flight", "to come", "completed", "money", "so far", "left", "ends")
    assert all(title in shown for title in titles)
    figures = re.findall(r"1/4 +(\d+) +(\d+) +(\d+) +\$0\.5[12]", shown)
    assert ("2", "1", "1") in figures
    assert "stopped: 1 of 4 done, 2 under way" in shown

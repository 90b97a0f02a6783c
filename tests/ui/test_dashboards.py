"""What a person does in Prefect's dashboards, in a real browser, from the form to the video's poster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from tests.local_stack import LEFT, RIGHT, eventually

if TYPE_CHECKING:
    from tests.local_stack import LocalStack
    from tests.ui.dashboard import Dashboard

pytestmark = [pytest.mark.chromium, pytest.mark.timeout(300)]
"""The first test waits for the stack."""

NAMES = {"v2": ("collins.jpg", "hopper.jpg"), "v1": ("hopper.jpg", "collins.jpg")}
"""Who stands on the left: the same photos in another order are another video."""


def test_the_form_makes_a_video(dashboard: Dashboard, stack: LocalStack, photos: str) -> None:
    """Open the deployment, choose, add two photos, submit, watch: Completed; the looks were retries of one task."""
    left, right = NAMES[dashboard.name]
    submissions, page = stack.counters()["submissions"], dashboard.page
    dashboard.open_form("on-demand")
    dashboard.choose("effect", "hug")
    dashboard.add_photo(f"{photos}/{left}")
    dashboard.add_photo(f"{photos}/{right}")
    dashboard.shot("form")
    run_id = dashboard.submit()
    expect(page.get_by_text(f"hug · {left} + {right}").first).to_be_visible()
    dashboard.shot("under-way")
    dashboard.until("Completed")
    dashboard.shot("completed")

    # A step's own Completed may stand on the page before the run's does.
    eventually(lambda: stack.api(f"/flow_runs/{run_id}")["state_type"] == "COMPLETED", stack)
    video = stack.api(f"/flow_runs/{run_id}")["state"]["message"]
    dashboard.read_message(video)
    assert video in {str(path) for path in stack.videos()}
    assert stack.counters()["submissions"] == submissions + 1

    eventually(lambda: _polled(stack, run_id)["state_name"] == "Completed", stack)
    looks = _polled(stack, run_id)["run_count"]
    assert looks > 2
    dashboard.tab("Task Runs")
    page.get_by_role("link", name="poll hug").first.click()
    expect(page.get_by_text("Run Count").locator("xpath=..")).to_contain_text(str(looks))
    expect(page.get_by_text("Retry 1/").first).to_be_visible()
    expect(page.get_by_text("generating (").first).to_be_visible()
    dashboard.shot("poll-retries")


def test_a_batch_shows_its_progress_its_rows_and_its_posters(dashboard: Dashboard, stack: LocalStack) -> None:
    """The progress moves while it runs; then there is a table with a line for each row, and a picture of each video."""
    take, page = {"v2": 1, "v1": 2}[dashboard.name], dashboard.page
    manifest = stack.folder / f"{dashboard.name}.jsonl"
    rows = [
        {"effect": "hug", "images": [str(LEFT), str(RIGHT)], "take": take, "name": "anna-and-ben"},
        {"effect": "squish", "images": [str(LEFT)], "take": take, "name": "collins"},
    ]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dashboard.open_form("nightly")
    dashboard.write(str(manifest))
    dashboard.write_number(1)  # one after the other
    dashboard.shot("batch-form")
    run_id = dashboard.submit()

    eventually(lambda: "progress" in _artifacts(stack, run_id), stack)
    dashboard.open(f"/artifacts/artifact/{_artifacts(stack, run_id)['progress']['id']}")
    eventually(lambda: _artifacts(stack, run_id)["progress"]["data"] == 50.0, stack)
    page.reload()
    expect(page.get_by_text("Progress: 50%")).to_be_visible()
    expect(page.get_by_text("1 of 2 rows")).to_be_visible()
    dashboard.shot("progress")

    dashboard.open(f"/runs/flow-run/{run_id}")
    dashboard.until("Completed")
    dashboard.tab("Artifacts")
    expect(page.get_by_role("link", name="batch-summary")).to_be_visible()
    dashboard.shot("artifacts")
    dashboard.open(f"/artifacts/artifact/{_artifacts(stack, run_id)['table']['id']}")
    for name in ("anna-and-ben", "collins"):
        row = page.get_by_role("row").filter(has_text=name)
        expect(row).to_contain_text("completed")
        expect(row).to_contain_text("video.mp4")
    dashboard.shot("rows")

    dashboard.open(f"/artifacts/artifact/{_artifacts(stack, run_id)['markdown']['id']}")
    for effect, name in (("hug", "anna-and-ben"), ("squish", "collins")):
        expect(page.get_by_role("cell", name=name)).to_be_visible()
        poster = page.get_by_role("img", name=effect)
        expect(poster).to_be_visible()
        assert poster.evaluate("image => image.decode().then(() => image.naturalWidth)") > 50
    dashboard.shot("posters")
    dashboard.open(f"/artifacts/artifact/{_artifacts(stack, run_id)['progress']['id']}")
    expect(page.get_by_text("Progress: 100%")).to_be_visible()


def test_a_wrong_combination_says_what_to_do(dashboard: Dashboard, stack: LocalStack, photos: str) -> None:
    """A hug of one person: the run ends before any step begins, and its page says why."""
    message = "hug needs two images (the first is the person on the left); one was given → fix the input"
    dashboard.open_form("on-demand")
    dashboard.choose("effect", "hug")
    dashboard.add_photo(f"{photos}/collins.jpg")
    run_id = dashboard.submit()
    dashboard.until("Rejected")
    dashboard.read_message(message)
    dashboard.shot("wrong-combination")
    state = stack.api(f"/flow_runs/{run_id}")["state"]
    assert (state["type"], state["name"], state["message"]) == ("FAILED", "Rejected", message)
    assert _tasks(stack, run_id) == []


def test_a_schedule_is_added(dashboard: Dashboard, stack: LocalStack) -> None:
    """In the dashboard, in hours; the server holds it beside the one of prefect.yaml, and plans runs by it."""
    hours, page = {"v2": 5, "v1": 7}[dashboard.name], dashboard.page
    dashboard.open_deployment("daily")
    dashboard.add_schedule(hours)
    expect(page.get_by_text(f"Every {hours} hours").first).to_be_visible()
    dashboard.shot("schedule")
    deployment = stack.api("/deployments/name/report/daily")
    schedules = [(one["active"], one["schedule"].get("interval")) for one in deployment["schedules"]]
    assert (True, hours * 3600.0) in schedules
    assert (True, None) in schedules  # the one that was there


def _artifacts(stack: LocalStack, run_id: str) -> dict[str, dict[str, Any]]:
    """The run's own, by their types."""
    found = stack.api("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run_id]}}})
    return {artifact["type"]: artifact for artifact in found if artifact["task_run_id"] is None}


def _polled(stack: LocalStack, run_id: str) -> dict[str, Any]:
    """The run's task that polls, as the server has it."""
    return next(run for run in _tasks(stack, run_id) if run["name"].startswith("poll "))


def _tasks(stack: LocalStack, run_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = stack.api("/task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    return found

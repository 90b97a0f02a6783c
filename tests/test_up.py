"""`effects up` as a person meets it: real processes, a folder to drop photos into, and nobody who touches anything."""

from __future__ import annotations

import json
import os
import signal
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import yaml

from deployments import up
from deployments.served import prefect_yaml
from deployments.stack import FILE, running_stack, take_place
from tests.local_stack import LEFT, LocalStack, eventually, local_stack

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    """One for the tests that leave it as it is."""
    with local_stack(tmp_path_factory.mktemp("up")) as started:
        started.start()
        started.turn(generate_seconds=1)
        started.rest()
        yield started


def test_photos_that_are_dropped_become_a_video(stack: LocalStack) -> None:
    """Folder, event, run, video: nobody has to do anything, and it is paid for once."""
    assert (stack.inbox / "heart_gesture").is_dir()
    stack.drop("anna-and-ben")
    eventually(lambda: len(stack.videos()) == 1, stack)
    (video,) = stack.videos()
    assert video.is_relative_to(stack.target / "hug")
    assert video.stat().st_size > 10_000
    assert set(stack.counters()["billed_by_client_request_id"].values()) == {1}
    eventually(lambda: "inbox · hug/anna-and-ben: Completed" in stack.told, stack)
    (run,) = _named(stack, "inbox · hug/anna-and-ben")
    assert run["state_name"] == "Completed"
    assert run["created_by"]["type"] == "AUTOMATION"
    words = ("submitted as", "Finished in state Completed('1 completed')")  # a fork hands over its last words, too
    eventually(lambda: all(said in _logs(stack, run) for said in words), stack)


def test_it_serves_what_prefect_yaml_says(stack: LocalStack) -> None:
    """Schedules, limits, parameters and triggers alike; no work pool would take the runs elsewhere."""
    served = {(row["entrypoint"], row["name"]): row for row in stack.api("/deployments/filter", {})}
    wanted = yaml.safe_load(prefect_yaml().read_text())["deployments"]
    assert len(served) == len(wanted) == 6
    for given in wanted:
        file, _, name = given["entrypoint"].partition(":")
        row = served[f"{file.removesuffix('.py').replace('/', '.')}.{name}", given["name"]]
        assert row["work_pool_name"] is None
        assert row["tags"][0] == given["tags"][0] == "effects"
        assert "{{" not in f"{row['tags']} {row['version']}"
        assert row["parameters"] == given.get("parameters", {})
        assert row["global_concurrency_limit"]["limit"] == given["concurrency_limit"]["limit"]
        assert row["concurrency_options"]["collision_strategy"] == given["concurrency_limit"]["collision_strategy"]
        assert [_schedule(schedule) for schedule in row["schedules"]] == [
            (schedule["slug"], schedule.get("interval"), schedule.get("cron"), schedule.get("active", True))
            for schedule in given.get("schedules", ())
        ]
    automations = {automation["name"] for automation in stack.api("/automations/filter", {})}
    assert {trigger["name"] for given in wanted for trigger in given.get("triggers", ())} < automations
    assert "effects · a crashed run is taken up again" in automations


def test_commands_run_in_it_where_nothing_else_is_configured(stack: LocalStack) -> None:
    """They find it by its lock, not by its port, and their runs are in its dashboard."""
    command = stack.effects(
        "generate",
        "squish",
        str(LEFT),
        "--json",
        EFFECTS_API_URL=stack.said["provider"],
        EFFECTS_API_KEY="sandbox",
        EFFECTS_POLL_INTERVAL_S="0.5",
        EFFECTS_DELIVERY="inline",
    )
    told, errors = command.communicate(timeout=60)
    assert json.loads(told)["state"] == "completed", errors
    (run,) = _named(stack, "squish · collins.jpg")
    assert run["deployment_id"] is None


def test_a_second_one_says_where_the_first_is(stack: LocalStack) -> None:
    """One line, and nothing is started."""
    before = stack.processes()
    second = stack.effects("up")
    told, errors = second.communicate(timeout=30)
    assert second.returncode == 1
    assert errors == (
        f"effects: `effects up` runs already: {stack.said['dashboard']} → use that one, or stop it first\n"
    )
    assert told == ""
    assert stack.processes() == before


def test_the_dashboard_asks_its_own_server(stack: LocalStack) -> None:
    """Whatever port it has."""
    settings = httpx.get(f"{stack.said['dashboard']}/ui-settings").json()
    assert settings["api_url"] == f"{stack.said['dashboard']}/api"


def test_a_port_that_is_taken_is_refused_when_it_was_asked_for(tmp_path: Path) -> None:
    """One line, and exit code 1; nothing is left."""
    with socket.create_server(("127.0.0.1", 0)) as other, local_stack(tmp_path) as stack:
        port = other.getsockname()[1]
        command = stack.effects("up", "--port", str(port))
        told, errors = command.communicate(timeout=30)
        assert (command.returncode, told) == (1, "")
        assert errors == f"effects: port {port} cannot be had: Address already in use → choose another with --port\n"
        assert stack.processes() == {}


def test_the_usual_port_is_not_insisted_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Where something else has it, the dashboard takes a free one and says so."""
    with socket.create_server(("127.0.0.1", 0)) as other, ExitStack() as ends:
        monkeypatch.setattr(up, "PORT", other.getsockname()[1])
        with up.Up(tmp_path, {}, ends, as_json=False)._listener(None) as listener:
            port = listener.getsockname()[1]
    assert f"is taken by something else: the dashboard takes {port}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variables", "options", "told"),
    [
        ({"EFFECTS_API_KEY": "two words"}, [], "EFFECTS_API_KEY holds characters"),
        ({"EFFECTS_MAX_ATTEMPTS": "0"}, [], "EFFECTS_MAX_ATTEMPTS"),
        ({"EFFECTS_API_URL": "http://127.0.0.1:9"}, [], "no key is set"),
        ({}, ["--target", "nowhere://videos"], "nowhere"),
        ({}, ["--target", "inbox/videos"], "lie inside each other"),
        ({}, ["--port", "high"], "--port"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(
    variables: dict[str, str], options: list[str], told: str, tmp_path: Path
) -> None:
    """Exit code 2, before anything is started."""
    with local_stack(tmp_path) as stack:
        command = stack.effects("up", *options, **variables)
        _, errors = command.communicate(timeout=30)
        assert command.returncode == 2
        assert told in errors
        assert errors.count("\n") == 1
        assert stack.processes() == {}


def test_a_run_can_be_cancelled_in_the_dashboard(stack: LocalStack) -> None:
    """Its process ends; what it has paid for stays open, and the next sweep finishes it."""
    stack.turn(generate_seconds=60)
    looks = stack.counters()["looks"]
    stack.drop("cancelled", take=1)
    eventually(lambda: stack.counters()["looks"] >= looks + 2, stack)
    (run,) = _named(stack, "inbox · hug/cancelled")
    stack.api(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}})
    eventually(lambda: _named(stack, "inbox · hug/cancelled")[0]["state_name"] == "Cancelled", stack)
    eventually(lambda: len([one for one in stack.processes().values() if "forkserver" in one]) == 1, stack)
    stack.turn(generate_seconds=1)


def test_a_run_that_does_not_hear_is_put_back_all_the_same(tmp_path: Path) -> None:
    """It is killed when the stack stops, which is no crash of its own: the next start goes on with it."""
    with local_stack(tmp_path) as stack:  # its own: the sweeps of its second start would take other tests' photos
        stack.start()
        stack.turn(generate_seconds=6)
        stack.rest()
        stack.drop("deaf")
        eventually(lambda: stack.counters()["looks"] >= 1, stack)
        os.kill(max(pid for pid, command in stack.processes().items() if "forkserver" in command), signal.SIGSTOP)
        assert stack.stop() == 0
        assert stack.processes() == {}

        stack.start()
        eventually(lambda: "inbox · hug/deaf: Completed · 1 completed" in stack.told, stack)
        assert set(stack.counters()["billed_by_client_request_id"].values()) == {1}


def test_it_ends_in_order_and_goes_on_where_it_was(stack: LocalStack) -> None:
    """Stopped while a generation is under way: no process is left, and the next start brings the video, paid once."""
    stack.turn(generate_seconds=6)
    looks, videos = stack.counters()["looks"], len(stack.videos())
    stack.drop("stopped", take=2)
    eventually(lambda: stack.counters()["looks"] >= looks + 2, stack)
    assert stack.stop(signal.SIGINT) == 0
    assert stack.processes() == {}
    assert running_stack(stack.home) is None
    assert "inbox · hug/stopped: AwaitingRetry" in stack.told
    assert len(stack.videos()) == videos

    stack.start()
    eventually(lambda: "inbox · hug/stopped: Completed · 1 completed" in stack.told, stack)
    (run,) = _named(stack, "inbox · hug/stopped")
    assert (run["state_name"], run["run_count"]) == ("Completed", 2)
    assert set(stack.counters()["billed_by_client_request_id"].values()) == {1}
    assert stack.counters()["submissions"] == 0  # since the start
    assert stack.stop(signal.SIGTERM) == 0
    assert stack.processes() == {}


def test_a_stale_record_is_no_running_stack(tmp_path: Path) -> None:
    """Whoever was killed holds no lock."""
    assert running_stack(tmp_path) is None
    (tmp_path / FILE).write_text('{"api_url": "http://127.0.0.1:4200/api"}')
    assert running_stack(tmp_path) is None
    with take_place(tmp_path) as place:
        assert place
        assert running_stack(tmp_path) is None
        place.tell("http://127.0.0.1:4201/api")
        assert running_stack(tmp_path) == "http://127.0.0.1:4201/api"
        with take_place(tmp_path) as second:
            assert second is None
    assert running_stack(tmp_path) is None


def _named(stack: LocalStack, name: str) -> list[dict[str, Any]]:
    return [run for run in stack.runs() if run["name"] == name]


def _logs(stack: LocalStack, run: dict[str, Any]) -> str:
    lines = stack.api("/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    return "\n".join(line["message"] for line in lines)


def _schedule(row: dict[str, Any]) -> tuple[str, float | None, str | None, bool]:
    return row["slug"], row["schedule"].get("interval"), row["schedule"].get("cron"), row["active"]

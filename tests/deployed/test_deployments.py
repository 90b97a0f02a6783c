"""prefect.yaml, compared with what the server holds after `prefect deploy --all`."""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from prefect.cli.deploy._models import (
    ConcurrencyLimitSpec,
    DeploymentConfig,
    PrefectYamlModel,
    RawScheduleConfig,
    WorkPoolConfig,
)
from prefect.events.schemas.deployment_triggers import DeploymentEventTrigger

from deployments.automations import TAG, UPLOAD_TRIGGER
from tests.deployed.conftest import HOUSE, emit, prefect, runs_of, spec_name, until

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from pydantic import BaseModel

    from tests.deployed.conftest import Deployed

pytestmark = pytest.mark.timeout(300)
"""The first test waits for the server, and for everything to be deployed."""

NAMES = [
    "generate/on-demand",
    "generate-batch/nightly",
    "process-inbox/sweep",
    "process-inbox/on-upload",
    "resume/sweep",
    "report/daily",
]
Held = dict[str, dict[str, Any]]


def _spec(deployed: Deployed, name: str) -> dict[str, Any]:
    return next(spec for spec in deployed.spec["deployments"] if spec_name(spec) == name)


def test_all_six_are_deployed_without_a_complaint(deployed: Deployed, held: Held) -> None:
    """Prefect skips what it does not understand with no more than a line of yellow text."""
    assert sorted(held) == sorted(NAMES)
    for output in (deployed.output, deployed.without_git):
        assert re.findall(r"Deployment '([^']+)' successfully", output) == NAMES
        assert not re.search(r"skip|invalid|warn|error|unable", output, re.IGNORECASE), output


def test_deploying_again_updates_in_place(deployed: Deployed, held: Held) -> None:
    """Runs, limits and automations refer to a deployment by its id."""
    assert {name: deployment["id"] for name, deployment in held.items()} == deployed.first_ids


def test_no_key_is_passed_over_in_silence(deployed: Deployed) -> None:
    """Of most keys that it does not know Prefect says nothing at all."""

    def check(given: dict[str, Any], known: type[BaseModel], *besides: str) -> None:
        names = set(known.model_fields) | {field.alias for field in known.model_fields.values() if field.alias}
        assert not set(given) - names - set(besides)

    check(deployed.spec, PrefectYamlModel, "definitions")
    for spec in deployed.spec["deployments"]:
        check(spec, DeploymentConfig)
        check(spec["work_pool"], WorkPoolConfig)
        check(spec["concurrency_limit"], ConcurrencyLimitSpec)
        for schedule in spec.get("schedules", ()):
            check(schedule, RawScheduleConfig)
        for trigger in spec.get("triggers", ()):
            check(trigger, DeploymentEventTrigger)


@pytest.mark.parametrize("name", NAMES)
def test_the_server_holds_what_the_file_says(name: str, deployed: Deployed, held: Held) -> None:
    """Entrypoint, pool, limits, parameters, and where a worker finds the code."""
    spec, there = _spec(deployed, name), held[name]
    assert there["entrypoint"] == spec["entrypoint"]
    assert there["work_pool_name"] == "effects"
    assert there["job_variables"] == spec["work_pool"]["job_variables"]
    assert there["parameters"] == spec.get("parameters", {})
    assert there["global_concurrency_limit"]["limit"] == spec["concurrency_limit"]["limit"]
    assert there["concurrency_options"]["collision_strategy"] == spec["concurrency_limit"]["collision_strategy"]
    assert there["pull_steps"] == [{"prefect.deployments.steps.set_working_directory": {"directory": str(HOUSE)}}]
    assert there["enforce_parameter_schema"] is True
    assert there["paused"] is False


@pytest.mark.parametrize("name", NAMES)
def test_the_server_holds_the_schedules(name: str, deployed: Deployed, held: Held) -> None:
    """Each with its slug and the one time zone; by the slug a next deploy finds it again."""
    wanted = _spec(deployed, name).get("schedules", [])
    there = held[name]["schedules"]
    assert len(there) == len(wanted)
    for spec, schedule in zip(wanted, there, strict=True):
        assert schedule["slug"] == spec["slug"]
        assert schedule["active"] is spec.get("active", True)
        assert schedule["schedule"]["timezone"] == deployed.spec["definitions"]["timezone"]
        assert schedule["schedule"].get("cron") == spec.get("cron")
        assert schedule["schedule"].get("interval") == spec.get("interval")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_tells_which_release_and_commit_made_it(name: str, deployed: Deployed, held: Held) -> None:
    """By its tags; outside of a clone it is deployed all the same."""
    git = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    described = subprocess.run(git, cwd=HOUSE, capture_output=True, text=True, check=False)
    commit = described.stdout.strip() or "no-git"
    release = version("photo-effects-pipeline")
    assert held[name]["tags"] == [TAG, f"v{release}", f"git-{commit}"]
    assert held[name]["version"] == f"{release}+{commit}"
    assert "no-git" not in deployed.output


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_type_and_an_explanation(name: str, held: Held) -> None:
    """One without a type is a field for raw JSON in the form, and takes anything."""
    parameters = held[name]["parameter_openapi_schema"]["properties"]
    assert parameters
    for parameter, schema in parameters.items():
        assert {"type", "anyOf"} & set(schema), parameter
        assert len(schema["description"]) > 20, parameter


def test_no_secret_is_a_parameter(held: Held, deployed: Deployed) -> None:
    """Parameters are stored in the clear and shown to everyone."""
    for deployment in held.values():
        for name in deployment["parameter_openapi_schema"]["properties"]:
            assert not re.search(r"key|secret|token|password", name)
    assert "API_KEY" not in str(deployed.spec["deployments"])


async def test_schedules_become_runs(client: PrefectClient) -> None:
    """On the quarter of an hour, whenever it was deployed."""
    deployment = await client.read_deployment_by_name("resume/sweep")

    async def planned() -> list[datetime]:
        filters = {"deployments": {"id": {"any_": [str(deployment.id)]}}}
        runs = (await client._client.post("/flow_runs/filter", json=filters)).json()
        return sorted(datetime.fromisoformat(run["expected_start_time"]) for run in runs if run["auto_scheduled"])

    times = await until(planned, "runs of resume/sweep are planned")
    assert all(time.minute % 15 == time.second == 0 for time in times)
    assert times[1] - times[0] == timedelta(minutes=15)


async def test_a_switched_off_schedule_stays_off_when_deployed_again(deployed: Deployed, client: PrefectClient) -> None:
    """An operator's switch in the dashboard is not undone by the next release."""
    deployment = await client.read_deployment_by_name("report/daily")
    schedule = deployment.schedules[0]
    await client.update_deployment_schedule(deployment.id, schedule.id, active=False)
    prefect("deploy", "--name", "report/daily", api_url=deployed.api_url)
    again = await client.read_deployment_by_name("report/daily")
    assert [(kept.id, kept.active) for kept in again.schedules] == [(schedule.id, False)]
    await client.update_deployment_schedule(deployment.id, schedule.id, active=True)


async def test_uploads_start_a_run_each_with_their_folders(client: PrefectClient) -> None:
    """However close together they come; the folders arrive as a list."""
    since, inbox = datetime.now(UTC).isoformat(), "s3://photos/inbox"
    uploads = [["hug/anna-and-ben"], ['kiss/c & "d"', "squish/é.jpg"], ["hug/anna-and-ben"]]
    for folders in uploads:
        resource = {"prefect.resource.id": f"effects.inbox.{inbox}/{folders[0]}"}
        await emit(client, "effects.upload", resource, payload={"inbox": inbox, "folders": folders})

    async def runs() -> list[dict[str, Any]] | None:
        found = await runs_of("process-inbox/on-upload", client, since)
        return found if len(found) >= len(uploads) else None

    found = await until(runs, "three runs of process-inbox/on-upload")
    assert sorted(run["parameters"]["folders"] for run in found) == sorted(uploads)
    assert {run["parameters"]["inbox"] for run in found} == {inbox}
    assert {run["state_name"] for run in found} <= {"Scheduled", "Late"}
    assert all(TAG in run["tags"] for run in found)


async def test_an_upload_that_cannot_start_a_run_is_swept_up(client: PrefectClient) -> None:
    """A payload that does not fit creates no run and only an event; a sweep finds the upload all the same, once."""
    since, resource = datetime.now(UTC).isoformat(), {"prefect.resource.id": "effects.inbox.s3://photos/inbox"}
    for _ in range(3):
        await emit(client, "effects.upload", resource, payload={"inbox": "s3://photos/inbox", "folders": "hug/anna"})

    async def failures() -> list[dict[str, Any]] | None:
        body = {"filter": {"event": {"name": ["prefect.automation.action.failed"]}, "occurred": {"since": since}}}
        found = (await client._client.post("/events/filter", json=body)).json()["events"]
        return found if len(found) >= 3 else None

    failed = await until(failures, "the trigger's action fails three times")
    assert {event["resource"]["prefect.resource.name"] for event in failed} == {UPLOAD_TRIGGER}
    swept = await until(lambda: runs_of("process-inbox/sweep", client, since), "a sweep is asked for")
    assert [run["parameters"] for run in swept] == [{}]
    assert not await runs_of("process-inbox/on-upload", client, since)
    assert len(await runs_of("process-inbox/sweep", client, since)) == 1

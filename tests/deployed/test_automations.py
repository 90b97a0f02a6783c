"""What the server does by itself: taking up dead runs, within bounds, and telling a person."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.schemas.objects import StateType
from prefect.states import Completed, Crashed, Failed, Pending, Running, Scheduled

from deployments import automations
from deployments.automations import RUNS, ensure_automations, notifications, recovery
from flows.attention import NEEDS_A_PERSON, TROUBLE
from tasks.errors import BadInput
from tests.deployed.conftest import emit, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun, State

    from tests.deployed.conftest import Deployed

pytestmark = pytest.mark.timeout(300)
"""The first test waits for the server, and for everything to be deployed."""


async def _asked_for(client: PrefectClient) -> UUID:
    deployment = await client.read_deployment_by_name("generate/on-demand")
    parameters = {"effect": "hug", "images": ["a.jpg", "b.jpg"]}
    return (await client.create_flow_run_from_deployment(deployment.id, parameters=parameters)).id


async def _goes(run: UUID, client: PrefectClient, *states: State[Any]) -> None:
    for state in states:
        answer = await client.set_flow_run_state(run, state)
        assert answer.status.value == "ACCEPT", answer


async def _in_state(run: UUID, client: PrefectClient, kind: StateType) -> FlowRun:
    async def found() -> FlowRun | None:
        flow_run = await client.read_flow_run(run)
        return flow_run if flow_run.state_type == kind else None

    there: FlowRun = await until(found, f"the run is {kind.value}")
    return there


async def _lines(client: PrefectClient) -> dict[str, str]:
    return {found.name: str(found.id) for found in await client.read_automations() if found.name.startswith("effects")}


async def test_the_command_creates_everything_once(deployed: Deployed, client: PrefectClient) -> None:
    """Doing it again changes nothing; deploying again takes nothing away."""
    first, second = deployed.done
    assert {line.split()[0] for line in first} == {"created"}
    assert {line.split()[0] for line in second} == {"unchanged"}
    assert len(first) == len(second) == 4
    assert len(await _lines(client)) == 4  # the upload's trigger comes with its deployment


async def test_a_changed_automation_is_put_right_and_a_switched_off_one_stays_off(client: PrefectClient) -> None:
    """By its name; two of the same name become one."""
    before = await _lines(client)
    sweep = (await client.read_deployment_by_name("process-inbox/sweep")).id
    silent, taken_up, _ = recovery(sweep)
    await client.update_automation(UUID(before[silent.name]), taken_up.model_copy(update={"name": silent.name}))
    await client.create_automation(taken_up)
    await client.pause_automation(UUID(before[taken_up.name]))
    done = await ensure_automations()
    assert f"updated    {silent.name}" in done
    assert set(await _lines(client)) == set(before)
    kept = await client.read_automations_by_name(taken_up.name)
    assert len(kept) == 1
    if kept[0].enabled:  # of the two, the one that somebody had switched off may have gone
        await client.pause_automation(kept[0].id)
    await ensure_automations()
    assert [automation.enabled for automation in await client.read_automations_by_name(taken_up.name)] == [False]
    await client.resume_automation(kept[0].id)


async def test_a_run_whose_process_died_is_taken_up_again_but_not_for_ever(client: PrefectClient) -> None:
    """The same run with its parameters; what kills its process every time stays crashed, for a person to see."""
    from flows.generate import generate  # noqa: PLC0415

    by_command = (await client.create_flow_run(generate, parameters={"effect": "hug", "images": ["a.jpg"]})).id
    await _goes(by_command, client, Running(), Crashed())  # whoever typed the command saw it end
    deadly, dead = [await _asked_for(client) for _ in range(2)]
    for _ in range(RUNS - 1):
        await _goes(deadly, client, Pending(), Running(), Failed(), Scheduled())
    await _goes(deadly, client, Pending(), Running(), Crashed())
    await _goes(dead, client, Pending(), Running(), Crashed(message="killed"))
    taken_up = await _in_state(dead, client, StateType.SCHEDULED)
    assert taken_up.parameters == {"effect": "hug", "images": ["a.jpg", "b.jpg"]}
    assert taken_up.state
    assert "its process died: it is taken up again" in [
        state.message for state in await client.read_flow_run_states(dead)
    ]
    assert (await client.read_flow_run(deadly)).state_type == StateType.CRASHED
    assert (await client.read_flow_run(deadly)).run_count == RUNS
    assert (await client.read_flow_run(by_command)).state_type == StateType.CRASHED


async def test_a_run_that_fell_silent_has_crashed(client: PrefectClient) -> None:
    """No process is left to say that it died; one that goes on, or ended in a state of our own, is left alone."""
    sweep = (await client.read_deployment_by_name("process-inbox/sweep")).id
    silent = recovery(sweep)[0]
    hasty = silent.trigger.model_copy(update={"within": timedelta(seconds=10)})  # 90 s are too long for a test
    impatient = await client.create_automation(silent.model_copy(update={"name": "impatient", "trigger": hasty}))
    try:
        dead, alive, ended = [await _asked_for(client) for _ in range(3)]
        for run in (dead, alive, ended):
            await _goes(run, client, Pending(), Running())
        for _ in range(3):  # as in life: a single one may get lost, or come before the server knows its automation
            for run in (dead, alive, ended):
                await _beat(run, client)
            await asyncio.sleep(1)
        await _goes(ended, client, Completed(name="Open"))

        async def crashed() -> bool:
            await _beat(alive, client)
            await asyncio.sleep(2)
            return "its heartbeats stopped" in [state.message for state in await client.read_flow_run_states(dead)]

        await until(crashed, "the silent run has crashed")
        assert (await client.read_flow_run(alive)).state_type == StateType.RUNNING
        assert (await client.read_flow_run(ended)).state_name == "Open"
        await _goes(alive, client, Completed())
    finally:
        await client.delete_automation(impatient)


async def test_a_person_is_told_once_of_each_trouble(client: PrefectClient, ear: Ear) -> None:
    """Through any notification block; a sweep that meets the same trouble every few minutes rings once."""
    await CustomWebhookNotificationBlock(
        name="effects", url=ear.url, json_data={"subject": "{{subject}}", "body": "{{body}}"}
    ).asave("ear", overwrite=True)
    done = await ensure_automations(notify="custom-webhook/ear")
    assert len(done) == 7
    run = await _asked_for(client)
    about = {"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.name": "inbox · all of it"}
    reason = "no face was found → try other photos"
    payload = {
        "line": "3 failed, 1 completed",
        "counts": {"failed": 3, "completed": 1},
        "cost_usd": 0.5,
        "reasons": [{"state": "failed", "reason": reason, "jobs": 3}],
    }
    for trouble in ("no face", "no face", "no money"):
        await emit(client, NEEDS_A_PERSON, {**about, TROUBLE: trouble}, payload=payload)

    async def rung() -> bool:
        return len(ear.heard) >= 2

    await until(rung, "two messages")
    await asyncio.sleep(2)
    assert len(ear.heard) == 2
    assert ear.heard[0]["subject"] == "Photo effects: a run needs a person"
    assert "inbox · all of it: 3 failed, 1 completed\n" in ear.heard[0]["body"]
    assert f"3 × failed: {reason}\n" in ear.heard[0]["body"]
    assert ear.heard[0]["body"].endswith(str(run))
    for automation in notifications(run):
        for found in await client.read_automations_by_name(automation.name):
            await client.delete_automation(found.id)


@pytest.mark.usefixtures("client")
async def test_what_has_to_be_there_first_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to do, and nothing half done to clean up."""
    with pytest.raises(BadInput, match="there is no block slack-webhook/none"):
        await ensure_automations(notify="slack-webhook/none")
    monkeypatch.setattr(automations, "SWEEP", "process-inbox/none")
    with pytest.raises(BadInput, match="run `prefect deploy --all` first"):
        await ensure_automations()


async def _beat(run: UUID, client: PrefectClient) -> None:
    tag = {"prefect.resource.id": "prefect.tag.effects", "prefect.resource.role": "tag"}
    await emit(client, "prefect.flow-run.heartbeat", {"prefect.resource.id": f"prefect.flow-run.{run}"}, related=[tag])


class Ear:
    """A webhook that remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[dict[str, str]] = []
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture
def ear() -> Iterator[Ear]:
    """One on a free port."""
    listening = Ear()
    threading.Thread(target=listening.server.serve_forever, daemon=True).start()
    yield listening
    listening.server.shutdown()
    listening.server.server_close()

"""A run that needs a person raises one event."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deployments.sandbox.faults import Fault
from flows.attention import NEEDS_A_PERSON, TROUBLE
from flows.batch import generate_batch
from flows.inbox import process_inbox
from flows.resume import resume
from tests.conftest import CHELSEA, COLLINS
from tests.deployed.conftest import until

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient

    from deployments.sandbox.server import Sandbox

pytestmark = pytest.mark.timeout(300)
"""The first test waits for the server, and for everything to be deployed."""

Event = dict[str, Any]


async def _run(flow: Any, *arguments: object, **parameters: object) -> str:  # noqa: ANN401
    """The id of the flow run, ended."""
    state = await flow(*arguments, **parameters, return_state=True)
    return str(state.state_details.flow_run_id)


async def _events(client: PrefectClient, since: str, *runs: str) -> list[Event]:
    """As many as there are, once everything up to here was written down."""

    async def ended() -> list[Event] | None:
        names = [NEEDS_A_PERSON, "prefect.flow-run.Failed", "prefect.flow-run.Completed"]
        body = {"filter": {"event": {"name": names}, "occurred": {"since": since}, "order": "ASC"}}
        found = (await client._client.post("/events/filter", json=body)).json()["events"]
        called = [event for event in found if event["event"] == NEEDS_A_PERSON]
        over = {event["resource"]["prefect.resource.id"] for event in found if event not in called}
        failed = sum(1 for event in found if event["event"].endswith("Failed"))
        return called if over >= {f"prefect.flow-run.{run}" for run in runs} and len(called) >= failed else None

    events: list[Event] = await until(ended, "the events of the runs")
    return events


async def test_a_batch_with_bad_rows_calls_once_with_counts_and_reasons(
    client: PrefectClient, sandbox: Sandbox
) -> None:
    """However many rows there are; a batch in which all is well calls nobody."""
    since = datetime.now(UTC).isoformat()
    good = {"effect": "squish", "images": [CHELSEA]}
    bad = {"effect": "hug", "images": [COLLINS]}
    Path("good.jsonl").write_text(json.dumps(good))
    Path("bad.jsonl").write_text("\n".join(json.dumps(row) for row in (good, bad, bad, {**bad, "effect": "hugg"})))
    well, ill = await _run(generate_batch, "good.jsonl"), await _run(generate_batch, "bad.jsonl")
    (event,) = await _events(client, since, well, ill)
    assert event["resource"]["prefect.resource.id"] == f"prefect.flow-run.{ill}"
    assert event["payload"]["line"] == "3 rejected, 1 reused"
    assert event["payload"]["counts"] == {"rejected": 3, "reused": 1}
    reasons = event["payload"]["reasons"]
    assert [(why["state"], why["jobs"]) for why in reasons] == [("rejected", 2), ("rejected", 1)]
    assert reasons[0]["reason"].startswith("hug needs two images")
    assert {related["prefect.resource.role"] for related in event["related"]} >= {"flow"}
    assert sandbox.counters.billed == 1


async def test_the_same_trouble_of_the_same_run_is_known_again(client: PrefectClient, sandbox: Sandbox) -> None:
    """By a label, so that a sweep does not ring every few minutes; other trouble has another."""
    since = datetime.now(UTC).isoformat()
    sandbox.knobs.faults = [Fault(kind="unauthorized")]
    for effect in ("squish", "expansion"):
        Path("inbox", effect).mkdir(parents=True)
        Path("inbox", effect, "cat.jpg").write_bytes(Path(CHELSEA).read_bytes())
    runs = [await _run(process_inbox, "inbox") for _ in range(2)]
    Path("inbox", "squish", "cat.jpg").unlink()
    runs.append(await _run(process_inbox, "inbox"))
    runs.append(await _run(process_inbox, "nowhere://else"))
    events = await _events(client, since, *runs)
    first, second, third, fourth = [event["resource"][TROUBLE] for event in events]
    assert first == second
    assert len({first, third, fourth}) == 3
    assert events[0]["payload"]["counts"] == {"deferred": 2}


async def test_a_run_that_could_not_begin_calls_too(client: PrefectClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody sees its traceback at night: the line says what to do."""
    since = datetime.now(UTC).isoformat()
    monkeypatch.setenv("EFFECTS_API_KEY", "key")
    runs = [await _run(generate_batch, "not-there.jsonl")]
    monkeypatch.delenv("EFFECTS_API_KEY")
    runs.append(await _run(resume))
    events = await _events(client, since, *runs)
    assert "not-there.jsonl" in events[0]["payload"]["line"]
    assert "no key is set: put EFFECTS_API_KEY" in events[1]["payload"]["line"]
    assert events[0]["payload"]["counts"] == {}

"""Many open jobs in one run of `resume`: money, limits, and what one of them does to the others."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flows.resume import resume_all
from tasks.errors import NotAuthorized
from tasks.provider import Provider
from tasks.settings import load_settings
from tasks.submit import submit
from tasks.workspace import Workspace, open_workspace
from tests.conftest import looked_at
from tests.pauses import shorten

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox
    from tasks.jobs import Outcome, Request

pytestmark = [
    pytest.mark.usefixtures("prefect_api", "sandbox"),
    pytest.mark.filterwarnings("ignore:Logger 'prefect"),  # the logic is called without its flow
]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for neighbours that are surely dead."""
    shorten(monkeypatch)


async def _resume_one(workspace: Workspace) -> Outcome:
    summary = await resume_all(workspace, resubmit_unknown=False)
    assert len(summary.rows) == 1
    return summary.rows[0]


async def test_account_trouble_stops_every_further_submission(workspace: Workspace, sandbox: Sandbox) -> None:
    """One is refused, the rest is not even sent; with money, all of it goes on."""
    for take in range(4):
        await workspace.ledger.open(await looked_at(workspace, take=take))
    sandbox.knobs.balance_usd = 0.0
    workspace.settings = workspace.settings.model_copy(update={"max_in_flight": 1})
    summary = await resume_all(workspace, resubmit_unknown=False)
    assert summary.counts == {"deferred": 4}
    assert all("out of credits" in str(row.reason) for row in summary.rows)
    assert sandbox.counters.submissions == 1
    sandbox.knobs.balance_usd = 10.0
    async with open_workspace(load_settings()) as another:
        assert (await resume_all(another, resubmit_unknown=False)).counts == {"completed": 4}
    assert sandbox.counters.billed == 4


async def test_the_budget_holds_for_the_whole_run(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$1.20 reaches for two videos of $0.515; what is under way already needs none of it."""
    requests = [await looked_at(workspace, take=take) for take in range(5)]
    for request in requests[1:]:
        await workspace.ledger.open(request)
    await submit(requests[0], workspace)
    monkeypatch.setenv("EFFECTS_BUDGET_USD", "1.2")
    async with open_workspace(load_settings()) as another:
        summary = await resume_all(another, resubmit_unknown=False)
    assert summary.counts == {"completed": 3, "deferred": 2}
    assert summary.cost_usd == pytest.approx(1.03)
    assert sandbox.counters.billed == 3


async def test_many_open_jobs_are_resumed_so_many_at_a_time(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty, with room for five."""
    first = await looked_at(workspace)
    for take in range(30):
        await workspace.ledger.open(await looked_at(workspace, take=take))
    assert first.price_usd == pytest.approx(0.515)
    monkeypatch.setenv("EFFECTS_MAX_IN_FLIGHT", "5")
    async with open_workspace(load_settings()) as another:
        summary = await resume_all(another, resubmit_unknown=False)
    assert summary.counts == {"completed": 30}
    assert sandbox.counters.billed == 30
    assert sandbox.counters.peak_open <= 5


async def test_many_look_ups_share_their_readings_of_the_log(workspace: Workspace, sandbox: Sandbox) -> None:
    """Forty unknown jobs, far fewer readings, and well within the 200 a minute that the provider allows."""
    for take in range(40):
        request = await looked_at(workspace, take=take)
        await workspace.ledger.open(request)
        await workspace.ledger.claim(request, 1)
    summary = await resume_all(workspace, resubmit_unknown=False)
    assert summary.counts == {"unknown": 40}
    assert sandbox.counters.logs <= 20
    assert sandbox.counters.submissions == 0


async def test_a_balance_that_does_not_fit_what_was_committed_is_told(
    workspace: Workspace, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More is gone than this run has committed: a person reads it in the log; the run goes on."""
    balances = iter([10.0, 8.97])

    async def balance(_: Provider) -> float:
        return next(balances)

    monkeypatch.setattr(Provider, "balance_usd", balance)
    await workspace.ledger.open(await looked_at(workspace))
    with caplog.at_level(logging.WARNING, "effects"):
        assert (await _resume_one(workspace)).state == "completed"
    assert "fell by $1.03, and this run committed $0.5" in caplog.text


async def test_a_balance_that_cannot_be_had_stops_nothing(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with the look at the account."""

    async def refuse(_: Provider) -> float:
        raise NotAuthorized("not for you")

    monkeypatch.setattr(Provider, "balance_usd", refuse)
    await workspace.ledger.open(await looked_at(workspace))
    assert (await _resume_one(workspace)).state == "completed"
    assert sandbox.counters.billed == 1


async def test_an_error_without_a_name_does_not_cancel_the_others(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their paid requests may be on their way; and it ends in a named state, as they do."""
    requests = [await looked_at(workspace, take=take) for take in range(3)]
    for request in requests:
        await workspace.ledger.open(request)
    record = type(workspace.ledger).record

    async def fail_for_one(self: Any, request: Request) -> Any:  # noqa: ANN401 - the method's own
        if request.take == 1:
            raise RuntimeError("nobody thought of this")
        return await record(self, request)

    monkeypatch.setattr(type(workspace.ledger), "record", fail_for_one)
    summary = await resume_all(workspace, resubmit_unknown=False)
    assert summary.counts == {"completed": 2, "deferred": 1}
    assert "nobody thought of this" in next(str(row.reason) for row in summary.rows if row.reason)
    folders = [Path("videos", workspace.ledger.folder(request)) for request in requests]
    assert [(folder / "metadata.json").exists() for folder in folders] == [True, False, True]
    assert sandbox.counters.billed == 2

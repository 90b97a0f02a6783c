"""The only step that costs money, called without Prefect: the ledger's rules, one test each."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from deployments.sandbox.faults import Fault
from tasks.errors import AccountTrouble, BudgetSpent, NeverSent, ProviderBusy, Rejected, StorageError, SubmitUnknown
from tasks.jobs import now
from tasks.ledger import ClaimDocument, Ledger
from tasks.poll import poll
from tasks.provider import Provider
from tasks.settings import load_settings
from tasks.storage import Storage
from tasks.submit import submit
from tasks.wait import Wait
from tasks.workspace import open_workspace
from tests.conftest import looked_at

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox
    from tasks.jobs import Generation, Request
    from tasks.workspace import Workspace


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of things is tested here, not the length of the pauses between them."""
    for name, value in {
        "submit.SEND_PAUSES_S": (0.05,),
        "submit.NEIGHBOUR_LOOK_S": 0.05,
        "reconcile.RECONCILE_PAUSES_S": (0.0, 0.05),
        "reconcile.NEIGHBOUR_LOOK_S": 0.05,
        "reconcile.NEIGHBOUR_S": 1.0,
        "ledger.KEEP_PAUSES_S": (0.05, 0.05),
    }.items():
        monkeypatch.setattr(f"tasks.{name}", value)


def _attempts(request: Request) -> dict[str, Any]:
    folder = Path("videos") / request.effect / request.job_id / "attempts"
    return {str(path.relative_to(folder)): json.loads(path.read_text()) for path in sorted(folder.rglob("*.json"))}


async def test_the_claim_comes_before_the_post_and_the_id_after_it(workspace: Workspace, sandbox: Sandbox) -> None:
    """Rules 1 and 2: claimed exclusively, sent under a derived id, and the answer kept."""
    request = await looked_at(workspace)
    sandbox.knobs.faults = [Fault(kind="slow", route="submit", seconds=0.5)]
    sending = asyncio.create_task(submit(request, workspace))
    await asyncio.sleep(0.3)
    assert list(_attempts(request)) == ["1/claim.json"]
    assert Path("videos", "_open", f"{request.job_id}.json").exists()
    generation = await sending
    kept = _attempts(request)
    assert kept["1/generation.json"]["id"] == generation.id
    assert list(sandbox.counters.billed_by_client_request_id) == [f"{request.job_id}.0.1"]


async def test_of_many_racing_processes_one_submits(workspace: Workspace, sandbox: Sandbox) -> None:
    """The others wait for the winner's id, and all have the same generation."""
    request = await looked_at(workspace)
    generations: list[Generation] = await asyncio.gather(*(submit(request, workspace) for _ in range(16)))
    assert len({generation.id for generation in generations}) == 1
    assert sandbox.counters.submissions == 1


async def test_a_job_that_is_under_way_is_taken_up_and_not_paid_again(workspace: Workspace, sandbox: Sandbox) -> None:
    """Rule 4: anyone may go on from the provider's id."""
    request = await looked_at(workspace)
    first = await submit(request, workspace)
    assert (await submit(request, workspace)).id == first.id
    assert sandbox.counters.submissions == 1


async def test_a_claimant_that_was_held_up_does_not_send(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 3: whoever wakes up after its claim ran out gives the attempt up as never sent."""
    request = await looked_at(workspace)
    clock = {"now": 0.0}
    workspace.ledger = Ledger(workspace.ledger.storage, clock=lambda: clock["now"])
    create = Storage.create

    async def slow_create(self: Storage, path: str, data: bytes) -> bool:
        won = await create(self, path, data)
        clock["now"] += 61.0  # long enough to send nothing any more
        return won

    monkeypatch.setattr(Storage, "create", slow_create)
    with pytest.raises(ProviderBusy, match="held up"):
        await submit(request, workspace)
    assert sandbox.counters.submissions == 0
    failure = _attempts(request)["1/failure.json"]
    assert (failure["kind"], failure["again"], failure["counts"]) == ("never_sent", True, False)


async def test_a_dead_neighbours_claim_is_looked_up_and_never_sent_again(
    workspace: Workspace, sandbox: Sandbox
) -> None:
    """Rule 3: a claim without an id, whose process is gone, is unknown."""
    request = await looked_at(workspace)
    await workspace.ledger.open(request)
    await workspace.ledger.claim(request, 1)
    with pytest.raises(SubmitUnknown, match="may have been paid for"):
        await submit(request, workspace)
    assert sandbox.counters.submissions == 0


async def test_a_dead_neighbours_submission_is_found_in_the_log(workspace: Workspace, sandbox: Sandbox) -> None:
    """It had been accepted before its process died: the id comes from the provider's log."""
    request = await looked_at(workspace)
    await workspace.ledger.open(request)
    await workspace.ledger.claim(request, 1)
    accepted = await workspace.provider.submit(
        model=request.model,
        scene=request.effect,
        image_urls=["data:image/png;base64,", "data:image/png;base64,"],
        duration=5,
        client_request_id=request.client_request_id(1),
    )
    generation = await submit(request, workspace)
    assert (generation.id, generation.found_in_log) == (accepted.id, True)
    assert sandbox.counters.submissions == 1


async def test_an_empty_claim_is_a_claim(workspace: Workspace, sandbox: Sandbox) -> None:
    """A process died between creating the file and writing it: the right is taken, nobody knows by whom."""
    request = await looked_at(workspace)
    await workspace.ledger.storage.create(f"hug/{request.job_id}/attempts/1/claim.json", b"")
    with pytest.raises(SubmitUnknown):
        await submit(request, workspace)
    assert sandbox.counters.submissions == 0


async def test_a_claim_from_the_future_does_not_hold_anyone_for_ever(workspace: Workspace) -> None:
    """Clocks disagree; the wait is measured on the waiting process's own."""
    request = await looked_at(workspace)
    at = now().replace(year=2099)
    document = ClaimDocument(claimant="x", at=at, client_request_id="y").model_dump_json().encode()
    await workspace.ledger.storage.create(f"hug/{request.job_id}/attempts/1/claim.json", document)
    with pytest.raises(SubmitUnknown):
        await asyncio.wait_for(submit(request, workspace), 10)


async def test_a_lost_answer_of_the_store_does_not_lose_the_claim(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write got through, its answer did not: the file itself says who holds the claim."""
    request = await looked_at(workspace)
    create = Storage.create

    async def lossy_create(self: Storage, path: str, data: bytes) -> bool:
        if await create(self, path, data):
            raise StorageError("the connection broke")
        return False

    monkeypatch.setattr(Storage, "create", lossy_create)
    await submit(request, workspace)
    assert sandbox.counters.billed == 1


async def test_an_id_is_kept_through_a_target_that_is_away_for_a_moment(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is worth money."""
    request = await looked_at(workspace)
    failures = iter([True, True, False])
    write = Storage.write

    async def failing(self: Storage, path: str, data: bytes) -> None:
        if path.endswith("generation.json") and next(failures):
            raise StorageError("away")
        await write(self, path, data)

    monkeypatch.setattr(Storage, "write", failing)
    generation = await submit(request, workspace)
    assert _attempts(request)["1/generation.json"]["id"] == generation.id


async def test_an_id_that_could_not_be_kept_is_found_again(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error carries the id, the job is open, and a later run finds the submission by its derived id."""
    request = await looked_at(workspace)

    async def failing(*_: object) -> None:
        raise StorageError("away")

    with monkeypatch.context() as away:
        away.setattr(Ledger, "record_generation", failing)
        with pytest.raises(StorageError) as caught:
            await submit(request, workspace)
    assert caught.value.state == "open"
    assert (await submit(request, workspace)).id == caught.value.generation_id
    assert sandbox.counters.submissions == 1


async def test_a_run_that_is_cancelled_while_sending_leaves_the_outcome_unknown(
    workspace: Workspace, sandbox: Sandbox
) -> None:
    """Whether the request had left cannot be told: it is looked up, not sent again."""
    request = await looked_at(workspace)
    sandbox.knobs.faults = [Fault(kind="slow", route="submit", when="after", seconds=1.0)]
    sending = asyncio.create_task(submit(request, workspace))
    await asyncio.sleep(0.4)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert list(_attempts(request)) == ["1/claim.json"]
    generation = await submit(request, workspace)
    assert generation.found_in_log
    assert sandbox.counters.billed == 1


async def test_a_run_that_is_cancelled_between_two_tries_has_sent_nothing(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger says so, and a later run may send."""
    monkeypatch.setattr("tasks.submit.SEND_PAUSES_S", (30.0,))
    request = await looked_at(workspace)
    sandbox.knobs.faults = [Fault(kind="429", route="submit", count=1)]
    sending = asyncio.create_task(submit(request, workspace))
    await asyncio.sleep(0.4)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert _attempts(request)["1/failure.json"]["kind"] == "never_sent"
    assert (await submit(request, workspace)).attempt == 2
    assert sandbox.counters.billed == 1


async def test_what_never_reached_the_provider_does_not_use_up_the_attempts(
    workspace: Workspace, sandbox: Sandbox
) -> None:
    """Account trouble five times over, then money: the job goes on."""
    request = await looked_at(workspace)
    sandbox.knobs.faults = [Fault(kind="no_credits", count=5)]
    for _ in range(5):
        with pytest.raises(AccountTrouble):
            await submit(request, workspace)
        workspace.trouble = None  # another run
    assert (await submit(request, workspace)).attempt == 6


async def test_account_trouble_stops_every_further_submission_of_the_run(
    workspace: Workspace, sandbox: Sandbox
) -> None:
    """One request is refused; the others are not even sent, and end with the same reason."""
    requests = [await looked_at(workspace, take=take) for take in range(3)]
    sandbox.knobs.faults = [Fault(kind="no_credits", count=1)]
    for request in requests:
        with pytest.raises(AccountTrouble, match="out of credits"):
            await submit(request, workspace)
    assert sandbox.counters.submissions == 1


async def test_the_budget_is_a_hard_stop_before_the_claim(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """$1.20 buys two videos of $0.515; the third is neither sent nor claimed, and what failed is not counted."""
    monkeypatch.setenv("EFFECTS_BUDGET_USD", "1.2")
    async with open_workspace(load_settings()) as workspace:
        sandbox.knobs.faults = [Fault(kind="invalid", count=1)]
        requests = [await looked_at(workspace, take=take) for take in range(4)]
        with pytest.raises(Rejected):
            await submit(requests[0], workspace)
        await submit(requests[1], workspace)
        await submit(requests[2], workspace)
        with pytest.raises(BudgetSpent, match=r"leaves \$0.17"):
            await submit(requests[3], workspace)
        assert workspace.budget.committed_usd == pytest.approx(1.03)
    assert _attempts(requests[3]) == {}
    assert sandbox.counters.billed == 2


async def test_a_connection_that_is_refused_is_surely_never_sent(workspace: Workspace) -> None:
    """Connection refused, no such host: the one kind of trouble after which a POST may be repeated."""
    request = await looked_at(workspace)
    for url in ("http://127.0.0.1:9", "http://no-such-host.invalid"):
        async with Provider(url, "key", "/v2/x") as nowhere:
            with pytest.raises(NeverSent):
                await nowhere.submit(
                    model=request.model, scene="hug", image_urls=["a", "b"], duration=5, client_request_id="x"
                )


async def test_both_routes_work(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The route is data: the universal one takes the same body and query."""
    Path("mine.toml").write_text('[provider]\npath = "/v2/video/generations"\n')
    monkeypatch.setenv("EFFECTS_CATALOGUE", "mine.toml")
    async with open_workspace(load_settings()) as workspace:
        generation = await submit(await looked_at(workspace), workspace)
        await asyncio.sleep(0.5)
        video = await poll(generation, workspace, Wait(10.0, age_s=60.0))
    assert video.url
    assert sandbox.counters.billed == 1


async def test_a_store_that_keeps_nobody_out_is_found_before_paying(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some stores take the condition of an exclusive write and ignore it: nothing is sent on such a claim."""
    request = await looked_at(workspace)

    async def overwrite(self: Storage, path: str, data: bytes) -> bool:
        await self.write(path, data)
        return True

    monkeypatch.setattr(Storage, "create", overwrite)
    with pytest.raises(StorageError, match="keep a second writer out"):
        await submit(request, workspace)
    assert sandbox.counters.submissions == 0
    assert _attempts(request)["1/failure.json"]["kind"] == "never_sent"


async def test_a_run_that_is_cancelled_while_claiming_gives_the_claim_back(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing was sent, the ledger says so, and a later run may send."""
    request = await looked_at(workspace)
    create = Storage.create

    async def slow_create(self: Storage, path: str, data: bytes) -> bool:
        await asyncio.sleep(0.3)
        return await create(self, path, data)

    with monkeypatch.context() as slow:
        slow.setattr(Storage, "create", slow_create)
        submitting = asyncio.create_task(submit(request, workspace))
        await asyncio.sleep(0.2)
        submitting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await submitting
    assert _attempts(request)["1/failure.json"]["kind"] == "never_sent"
    await submit(request, workspace)
    assert sandbox.counters.billed == 1


@pytest.mark.parametrize("said", ["Invalid url https://[your-host]/x", "\ud83d", "x" * 5000])
async def test_no_text_of_the_provider_breaks_the_ledger(said: str, workspace: Workspace) -> None:
    """Whatever it says of a refusal is written down in one line, and the job has its state."""
    request = await looked_at(workspace)

    def refuse(_: httpx.Request) -> httpx.Response:
        return httpx.Response(400, content=json.dumps({"message": said}).encode())

    key, path = "key", workspace.catalogue.provider.path
    workspace.provider = Provider("http://provider", key, path, transport=httpx.MockTransport(refuse))
    with pytest.raises(Rejected):
        await submit(request, workspace)
    assert _attempts(request)["1/failure.json"]["kind"] == "refused"


@pytest.mark.parametrize("status", [302, 408, 409, 425, 499, 500, 503, 599])
async def test_an_answer_that_tells_nothing_is_unknown(status: int, workspace: Workspace) -> None:
    """A redirect, a conflict, a gateway that gave up: the request may have gone through."""
    request = await looked_at(workspace)
    posts = 0

    def answer(asked: httpx.Request) -> httpx.Response:
        nonlocal posts
        posts += asked.method == "POST"
        return httpx.Response(status if asked.method == "POST" else 200, json={"data": []})

    transport = httpx.MockTransport(answer)
    workspace.provider = Provider("http://provider", "key", "/v2/x", transport=transport)
    with pytest.raises(SubmitUnknown) as caught:
        await submit(request, workspace)
    assert caught.value.looked_up
    assert posts == 1


async def test_a_log_that_cannot_be_read_is_not_taken_for_one_that_does_not_show_it(
    workspace: Workspace, sandbox: Sandbox
) -> None:
    """Only a log that was read to its end may lead a person to allow another submission."""
    request = await looked_at(workspace)
    sandbox.knobs.faults = [
        Fault(kind="502", route="submit", when="after", count=1),
        Fault(kind="503", route="logs"),
    ]
    with pytest.raises(SubmitUnknown, match="cannot be read") as caught:
        await submit(request, workspace)
    assert not caught.value.looked_up

"""What was left open is finished, from every stage in which a process can have died; nothing is paid for twice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deployments.cli import main
from deployments.sandbox.faults import Fault
from flows.resume import resume_all
from tasks.delivery import deliver
from tasks.jobs import Outcome, Request, Summary, now
from tasks.ledger import ClaimDocument, Failure
from tasks.persist import persist
from tasks.poll import poll
from tasks.settings import load_settings
from tasks.submit import submit
from tasks.wait import Wait
from tasks.workspace import Workspace, open_workspace
from tests.conftest import COLLINS, HOPPER, looked_at
from tests.pauses import shorten

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

pytestmark = [
    pytest.mark.usefixtures("prefect_api", "sandbox"),
    pytest.mark.filterwarnings("ignore:Logger 'prefect"),  # the logic is called without its flow
]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for neighbours that are surely dead."""
    shorten(monkeypatch)


def _folder(request: Request) -> Path:
    return Path("videos") / request.effect / request.job_id


def _note(request: Request) -> Path:
    return Path("videos", "_open", f"{request.job_id}.json")


def _read(request: Request, name: str) -> dict[str, Any]:
    return dict(json.loads((_folder(request) / name).read_text()))


async def _claimed(request: Request, workspace: Workspace) -> None:
    """A process died between its claim and its request."""
    await workspace.ledger.open(request)
    await workspace.ledger.claim(request, 1)


async def _sent(request: Request, workspace: Workspace) -> str:
    """A process died between its request and writing the answer down."""
    await _claimed(request, workspace)
    submission = await workspace.provider.submit(
        model=request.model,
        scene=request.effect,
        image_urls=await deliver(request, workspace.settings),
        duration=5,
        client_request_id=request.client_request_id(1),
    )
    return submission.id


def _age_claim(request: Request, minutes: int = 20) -> None:
    """As if that time had passed: by the claimant's clock and by the store's."""
    path = _folder(request) / "attempts" / "1" / "claim.json"
    claim = ClaimDocument.model_validate_json(path.read_bytes())
    path.write_text(claim.model_copy(update={"at": now() - timedelta(minutes=minutes)}).model_dump_json())
    os.utime(path, (time.time() - minutes * 60,) * 2)


async def _resume_one(workspace: Workspace, *, resubmit_unknown: bool = False) -> Outcome:
    summary = await resume_all(workspace, resubmit_unknown=resubmit_unknown)
    assert len(summary.rows) == 1
    return summary.rows[0]


def _run(capsys: pytest.CaptureFixture[str], *options: str, code: int = 0) -> tuple[Summary, str]:
    assert main(["resume", *options, "--json"]) == code
    told = capsys.readouterr()
    assert list(json.loads(told.out)) == ["counts", "cost_usd", "rows"]
    return Summary.model_validate_json(told.out), told.err


async def test_a_job_that_was_only_begun_is_made(workspace: Workspace, sandbox: Sandbox) -> None:
    """Its process died before the claim: its photos are fetched again, and it is paid for once."""
    request = await looked_at(workspace)
    await workspace.ledger.open(request)
    outcome = await _resume_one(workspace)
    assert (outcome.state, outcome.attempt) == ("completed", 1)
    assert outcome.cost_usd == pytest.approx(0.515)
    assert Path(str(outcome.video)).is_file()
    assert not _note(request).exists()
    assert sandbox.counters.billed == 1


async def test_a_lost_answer_is_found_in_the_providers_log(workspace: Workspace, sandbox: Sandbox) -> None:
    """Claimed, sent, and the process died: the generation is taken up, and nothing is sent."""
    request = await looked_at(workspace)
    generation_id = await _sent(request, workspace)
    outcome = await _resume_one(workspace)
    assert (outcome.state, outcome.generation_id, outcome.cost_usd) == ("completed", generation_id, 0)
    assert _read(request, "attempts/1/generation.json")["found_in_log"]
    assert sandbox.counters.submissions == 1


async def test_a_claim_that_the_log_does_not_show_is_never_sent_again(workspace: Workspace, sandbox: Sandbox) -> None:
    """However often it is resumed, the job is unknown, visible, and open."""
    request = await looked_at(workspace)
    await _claimed(request, workspace)
    _age_claim(request, minutes=60)
    for _ in range(3):
        outcome = await _resume_one(workspace)
        assert outcome.state == "unknown"
        assert "never sends it twice by itself" in str(outcome.reason)
    assert _note(request).exists()
    assert sandbox.counters.submissions == 0


def _a_lost_submission(sandbox: Sandbox) -> Request:
    """A job that was paid for, whose answer was lost, and which the provider's log does not show."""
    sandbox.knobs.log_delay_seconds = 1e6

    async def lose() -> Request:
        async with open_workspace(load_settings()) as workspace:
            request = await looked_at(workspace)
            await _sent(request, workspace)
            return request.for_ledger()

    return asyncio.run(lose())


def test_a_young_claim_is_not_sent_again_even_where_that_is_allowed(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever holds it might still send; the command says how long to wait, and what it may cost."""
    request = _a_lost_submission(sandbox)
    _age_claim(request, minutes=4)
    summary, told = _run(capsys, "--resubmit-unknown", code=1)
    assert summary.counts == {"unknown": 1}
    assert "4 of 15 minutes have passed" in str(summary.rows[0].reason)
    assert "1 job is unknown" in told
    assert "up to $0.5" in told
    assert sandbox.counters.submissions == 1


def test_an_old_claim_is_sent_again_where_a_person_allows_it(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """Attempt 2, under an id of its own; the ledger says that attempt 1 was given up."""
    request = _a_lost_submission(sandbox)
    _age_claim(request)
    summary, _ = _run(capsys, code=1)
    assert summary.counts == {"unknown": 1}
    assert sandbox.counters.submissions == 1
    summary, _ = _run(capsys, "--resubmit-unknown")
    assert (summary.rows[0].state, summary.rows[0].attempt) == ("completed", 2)
    assert summary.cost_usd == pytest.approx(0.515)
    assert _read(request, "attempts/1/failure.json")["kind"] == "abandoned"
    assert set(sandbox.counters.billed_by_client_request_id.values()) == {1}
    assert sandbox.counters.submissions == 2


async def test_a_generation_under_way_is_taken_up(workspace: Workspace, sandbox: Sandbox) -> None:
    """Its process died while it waited; its photos are not needed any more."""
    photos = [shutil.copy(photo, Path(photo).name) for photo in (COLLINS, HOPPER)]
    request = await looked_at(workspace, "hug", *photos)
    await submit(request, workspace)
    for photo in photos:
        Path(photo).unlink()
    async with open_workspace(load_settings()) as another:
        outcome = await _resume_one(another)
    assert (outcome.state, outcome.cost_usd) == ("completed", 0)
    assert sandbox.counters.submissions == 1


async def test_a_failure_that_is_worth_it_gets_another_attempt(workspace: Workspace, sandbox: Sandbox) -> None:
    """The provider failed, and so did our process: attempt 2 is sent with photos that were fetched again."""
    request = await looked_at(workspace)
    await workspace.ledger.open(request)
    await workspace.ledger.claim(request, 1)
    failure = Failure(kind="downstream_service_error", reason="upstream", again=True, counts=True, at=now())
    await workspace.ledger.record_failure(request, 1, failure)
    outcome = await _resume_one(workspace)
    assert (outcome.state, outcome.attempt) == ("completed", 2)
    assert list(sandbox.counters.billed_by_client_request_id) == [request.client_request_id(2)]


async def test_a_generation_that_fails_while_it_is_resumed_gets_another_attempt(
    workspace: Workspace, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    """One run, two attempts; the hold of the first comes back, and the money still agrees."""
    sandbox.knobs.faults = [Fault(kind="error_null", count=1)]
    request = await looked_at(workspace)
    await submit(request, workspace)
    async with open_workspace(load_settings()) as another:
        outcome = await _resume_one(another)
    assert (outcome.state, outcome.attempt) == ("completed", 2)
    assert outcome.cost_usd == pytest.approx(0.515)
    assert sandbox.counters.submissions == 2
    assert "balance" not in caplog.text


@pytest.mark.parametrize("trouble", ["gone", "changed"])
async def test_a_photo_that_is_gone_or_another_one_is_told_and_the_job_stays_open(
    trouble: str, workspace: Workspace, sandbox: Sandbox
) -> None:
    """The wish was for that picture; put back, it is made."""
    photos = [shutil.copy(photo, Path(photo).name) for photo in (COLLINS, HOPPER)]
    request = await looked_at(workspace, "hug", *photos)
    await workspace.ledger.open(request)
    if trouble == "gone":
        Path(photos[1]).unlink()
    else:
        shutil.copy(COLLINS, photos[1])
    outcome = await _resume_one(workspace)
    assert outcome.state == "rejected"
    assert "image 2" in str(outcome.reason)
    assert ("no such file" if trouble == "gone" else "not the picture any more") in str(outcome.reason)
    assert _note(request).exists()
    assert sandbox.counters.submissions == 0
    shutil.copy(HOPPER, photos[1])
    assert (await _resume_one(workspace)).state == "completed"


async def test_an_attempt_that_ends_elsewhere_while_we_wait_is_followed_by_one_of_ours(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The neighbour gave its claim up: our own attempt needs the photos, which had not been fetched."""
    monkeypatch.setattr("tasks.reconcile.NEIGHBOUR_S", 30.0)
    request = await looked_at(workspace)
    await _claimed(request, workspace)
    resuming = asyncio.create_task(_resume_one(workspace))
    await asyncio.sleep(0.5)
    failure = Failure(kind="never_sent", reason="cancelled", again=True, counts=False, at=now())
    await workspace.ledger.record_failure(request, 1, failure)
    outcome = await asyncio.wait_for(resuming, 20)
    assert (outcome.state, outcome.attempt) == ("completed", 2)
    assert sandbox.counters.billed == 1


async def test_a_finished_job_that_is_still_noted_as_open_is_tidied_up(workspace: Workspace, sandbox: Sandbox) -> None:
    """Its process died between the last two writes."""
    request = await looked_at(workspace)
    await persist(await _generated(request, workspace), workspace)
    await workspace.ledger.open(request)
    async with open_workspace(load_settings()) as another:
        outcome = await _resume_one(another)
    assert (outcome.state, outcome.cost_usd) == ("reused", 0)
    assert not _note(request).exists()
    assert sandbox.counters.submissions == 1


async def test_a_job_that_failed_for_good_is_tidied_up_without_its_photos(
    workspace: Workspace, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Its process died before the last step, and the photo is gone since: nothing is left to fetch or to send."""
    photo = Path(shutil.copy(COLLINS, tmp_path / "gone.jpg"))
    request = await looked_at(workspace, "squish", str(photo))
    await workspace.ledger.open(request)
    failure = Failure(kind="face_detection_error", reason="no face", again=False, counts=True, at=now())
    await workspace.ledger.record_failure(request, 1, failure)
    photo.unlink()
    outcome = await _resume_one(workspace)
    assert (outcome.state, outcome.attempt) == ("failed", 1)
    assert "no face" in (outcome.reason or "")
    assert not _note(request).exists()
    assert sandbox.counters.submissions == 0


async def _generated(request: Request, workspace: Workspace) -> Any:  # noqa: ANN401 - a Video
    generation = await submit(request, workspace)
    await asyncio.sleep(0.5)
    return await poll(generation, workspace, Wait(10.0, age_s=60.0))


def test_where_nothing_is_open_there_is_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 0, at once: neither a key nor a Prefect server is needed to know that."""
    monkeypatch.delenv("EFFECTS_API_KEY")
    assert main(["resume"]) == 0
    assert capsys.readouterr().out == "nothing to do\n"
    summary, _ = _run(capsys)
    assert (summary.counts, summary.cost_usd, summary.rows) == ({}, 0, ())


def test_a_person_sees_each_job_on_its_way_and_what_is_left(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line a step, by effect and short id; exit code 2 where photos are to be mended and all else is there."""
    shutil.copy(COLLINS, "left.jpg")

    async def begin() -> list[Request]:
        async with open_workspace(load_settings()) as workspace:
            requests = [await looked_at(workspace, "hug", "left.jpg", HOPPER), await looked_at(workspace, take=1)]
            for request in requests:
                await workspace.ledger.open(request)
            return requests

    without, whole = asyncio.run(begin())
    Path("left.jpg").unlink()
    assert main(["resume"]) == 2
    told = capsys.readouterr()
    assert f"hug {whole.job_id[:8]}: attempt 1 submitted as" in told.err
    assert f"hug {whole.job_id[:8]}: completed" in told.err
    assert f"hug {without.job_id[:8]} rejected" in told.out
    assert "fix the input" in told.out
    assert told.out.splitlines()[-1] in {
        f"{line}, $0.{cents} spent"
        for line in ("1 completed, 1 rejected", "1 rejected, 1 completed")
        for cents in ("51", "52")
    }
    assert sandbox.counters.billed == 1

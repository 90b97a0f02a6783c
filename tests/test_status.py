"""The ledger at a glance: every state, with its reason and what to do next, from one listing and without a key."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from deployments.cli import main
from tasks.jobs import Generation, Request, SourceImage, job_id, now
from tasks.ledger import ClaimDocument, Failure, Ledger
from tasks.storage import Storage
from tasks.survey import Entry, survey, survey_open

if TYPE_CHECKING:
    from collections.abc import Callable

PRICE_USD = 0.515


def _request(take: int, effect: str = "hug") -> Request:
    source = SourceImage(url="s3://photos/a.jpg", sha256="0" * 64, size=1)
    return Request(
        job_id=job_id(effect, (source.sha256,), 5, "model", take),
        effect=effect,
        sources=(source,),
        duration=5,
        model="model",
        take=take,
        price_usd=PRICE_USD,
    )


@pytest.fixture
def ledger() -> Ledger:
    """The ledger of the default target."""
    return Ledger(Storage("videos"))


async def _claim(request: Request, ledger: Ledger, *, minutes: float = 0.0) -> None:
    await ledger.open(request)
    await ledger.claim(request, 1)
    path = Path("videos", ledger.folder(request), "attempts", "1", "claim.json")
    claim = ClaimDocument.model_validate_json(path.read_bytes())
    path.write_text(claim.model_copy(update={"at": now() - timedelta(minutes=minutes)}).model_dump_json())
    os.utime(path, (time.time() - minutes * 60,) * 2)


async def _generate(request: Request, ledger: Ledger, cost_usd: float | None = None) -> None:
    await _claim(request, ledger)
    generation = Generation(request=request, attempt=1, id="g:1/x", submitted_at=now(), cost_usd=cost_usd)
    await ledger.record_generation(generation)


async def _fail(request: Request, ledger: Ledger, kind: str, *, again: bool, counts: bool = True) -> None:
    await _claim(request, ledger)
    failure = Failure(kind=kind, reason="so it said", again=again, counts=counts, at=now())
    await ledger.record_failure(request, 1, failure)


async def _complete(request: Request, ledger: Ledger) -> None:
    await _generate(request, ledger)
    await ledger.storage.write(f"{ledger.folder(request)}/metadata.json", b"{}")
    await ledger.close(request)


async def _one(ledger: Ledger) -> Entry:
    entries = await survey(ledger)
    assert len(entries) == 1
    return entries[0]


async def test_a_job_that_was_only_begun_is_deferred(ledger: Ledger) -> None:
    """Nothing was sent, nothing is spent; its note says which effect, and since when."""
    await ledger.open(_request(0))
    entry = await _one(ledger)
    assert (entry.state, entry.effect, entry.attempt, entry.cost_usd) == ("deferred", "hug", 0, 0)
    assert entry.reason == "it was begun, and nothing was sent"
    assert entry.next_move == "run `effects resume`"
    assert entry.since
    assert now() - entry.since < timedelta(minutes=1)


async def test_a_young_claim_is_perhaps_being_submitted(ledger: Ledger) -> None:
    """Another process may be at it right now: no reason to worry yet."""
    await _claim(_request(0), ledger)
    entry = await _one(ledger)
    assert (entry.state, entry.attempt) == ("unknown", 1)
    assert "perhaps being submitted right now" in str(entry.reason)
    assert entry.next_move == "look again in a moment"


@pytest.mark.parametrize(("minutes", "allowed"), [(10, False), (20, True)])
async def test_an_old_claim_is_unknown_and_may_have_been_paid_for(minutes: int, allowed: bool, ledger: Ledger) -> None:
    """What it may have cost; sending it again is named only where it is allowed by now."""
    await _claim(_request(0), ledger, minutes=minutes)
    entry = await _one(ledger)
    assert (entry.state, entry.cost_usd) == ("unknown", PRICE_USD)
    assert "may have been paid for" in str(entry.reason)
    assert ("--resubmit-unknown" in str(entry.next_move)) == allowed


async def test_a_generation_without_an_end_is_open(ledger: Ledger) -> None:
    """With the provider's id and figure, or the expected price where it gave none."""
    await _generate(_request(0), ledger, cost_usd=0.52)
    await _generate(_request(1), ledger)
    entries = await survey(ledger)
    assert {entry.state for entry in entries} == {"open"}
    assert {entry.generation_id for entry in entries} == {"g:1/x"}
    assert {entry.cost_usd for entry in entries} == {0.52, PRICE_USD}


@pytest.mark.parametrize(
    ("kind", "again", "counts", "state", "reason", "move"),
    [
        ("face_detection_error", False, True, "failed", "face_detection_error: so it said", "other photos"),
        ("unspecified", True, True, "deferred", "so it said", "run `effects resume`"),
        ("refused", False, True, "rejected", "so it said", "fix the input"),
        ("never_sent", True, False, "deferred", "so it said", "run `effects resume`"),
        ("account", True, False, "deferred", "so it said", "top up"),
        ("abandoned", True, False, "deferred", "so it said", "run `effects resume`"),
    ],
)
async def test_a_failure_is_an_end_or_worth_another_attempt(
    kind: str, again: bool, counts: bool, state: str, reason: str, move: str, ledger: Ledger
) -> None:
    """As the next submission would take it."""
    await _fail(_request(0), ledger, kind, again=again, counts=counts)
    entry = await _one(ledger)
    assert (entry.state, entry.reason, entry.cost_usd) == (state, reason, 0)
    assert move in str(entry.next_move)


async def test_attempts_that_are_used_up_are_an_end(ledger: Ledger) -> None:
    """Two failures that were worth another attempt, with two allowed; with three, it may go on."""
    request = _request(0)
    await _fail(request, ledger, "upstream", again=True)
    await ledger.claim(request, 2)
    await ledger.record_failure(request, 2, Failure(kind="upstream", reason="no", again=True, counts=True, at=now()))
    entry = await _one(ledger)
    assert (entry.state, entry.attempt, entry.reason) == ("failed", 2, "upstream: no (2 of 2 attempts)")
    assert (await survey(ledger, max_attempts=3))[0].state == "deferred"


async def test_what_resume_does_not_see_has_to_be_asked_for_again(ledger: Ledger) -> None:
    """A job without its note: ended for two attempts, and now three are allowed."""
    request = _request(0)
    await _fail(request, ledger, "upstream", again=True)
    await ledger.close(request)
    entry = await _one(ledger)
    assert (entry.effect, entry.state) == ("hug", "deferred")
    assert "ask for it again" in str(entry.next_move)


async def test_a_finished_job_needs_nothing(ledger: Ledger) -> None:
    """Where its note was left behind, that is told."""
    await _complete(_request(0), ledger)
    assert await _one(ledger) == Entry(effect="hug", job_id=_request(0).job_id, state="completed")
    await ledger.open(_request(0))
    entry = await _one(ledger)
    assert entry.state == "completed"
    assert "left behind" in str(entry.reason)


async def test_a_note_that_cannot_be_read_is_told(ledger: Ledger) -> None:
    """Nothing else is known of the job; which file it is, is."""
    await ledger.storage.write(f"_open/{'a' * 32}.json", b"{")
    entry = await _one(ledger)
    assert (entry.state, entry.effect) == ("deferred", "")
    assert f"_open/{'a' * 32}.json" in str(entry.next_move)


async def test_foreign_files_are_passed_over(ledger: Ledger) -> None:
    """A target is a bucket, and buckets hold all kinds of things."""
    await _complete(_request(0), ledger)
    for name in (
        "notes.txt",
        "hug/readme.md",
        f"hug/{'b' * 31}/metadata.json",
        f"Hug!/{'b' * 32}/metadata.json",
        f"hug/{'c' * 32}/video.mp4",
        f"hug/{'c' * 32}/attempts/x/claim.json",
        f"_sandbox/{'d' * 32}/metadata.json",
        f"deep/down/{'e' * 32}/metadata.json",
        "_open/readme.json",
        f"_open/{'f' * 32}.json.1234abcd.part",
        "_inbox/1.json",
    ):
        await ledger.storage.write(name, b"\xff{")
    assert [entry.state for entry in await survey(ledger)] == ["completed"]


async def test_one_listing_and_no_document_of_what_is_done(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive costs one listing, however many jobs are in it; only what is unfinished is read."""
    for take in range(20):
        await _complete(_request(take), ledger)
    await _generate(_request(20), ledger)
    calls: list[tuple[str, str]] = []

    def counted(name: str) -> Callable[..., Any]:
        method = getattr(Storage, name)

        async def call(self: Storage, path: str) -> Any:  # noqa: ANN401 - the method's own
            calls.append((name, path))
            return await method(self, path)

        return call

    for name in ("list", "read", "size", "modified"):
        monkeypatch.setattr(Storage, name, counted(name))
    entries = await survey(ledger)
    assert [entry.state for entry in entries] == ["open", *["completed"] * 20]
    assert calls.count(("list", "")) == 1
    assert [name for name, _ in calls].count("list") == 1
    assert all(_request(20).job_id in path for _, path in calls[1:])
    assert len(calls) <= 5


async def test_the_survey_of_what_is_open_says_the_same_of_it(ledger: Ledger) -> None:
    """At the cost of what is open alone."""
    await _complete(_request(0), ledger)
    await _generate(_request(1), ledger)
    await _claim(_request(2), ledger, minutes=20)
    await ledger.open(_request(3))
    everything = await survey(ledger)
    assert await survey_open(ledger) == everything[:3]


async def test_the_survey_of_a_bucket(s3: str) -> None:
    """The same on S3, where there are no folders."""
    ledger = Ledger(Storage(f"{s3}/videos"))
    assert await survey(ledger) == ()
    await ledger.open(_request(0))
    await ledger.open(_request(1))
    await ledger.claim(_request(1), 1)
    assert [entry.state for entry in await survey(ledger)] == ["unknown", "deferred"]


def _every_state() -> None:
    async def fill() -> None:
        ledger = Ledger(Storage("videos"))
        await _complete(_request(0), ledger)
        await _generate(_request(1), ledger, cost_usd=0.52)
        await _claim(_request(2), ledger, minutes=20)
        await ledger.open(_request(3))
        await _fail(_request(4, "kiss"), ledger, "face_detection_error", again=False)
        await _fail(_request(5, "squish"), ledger, "refused", again=False)

    asyncio.run(fill())


def test_the_table_shows_what_is_not_done_and_sums_up(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Worst first, with reason and next move; then one line of counts and money."""
    monkeypatch.setenv("COLUMNS", "250")
    _every_state()
    assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    states = [line.split()[0] for line in lines if line]
    assert states == ["state", "unknown", "failed", "rejected", "deferred", "open", "./videos:"]
    assert "20 min ago" in lines[1]
    assert "→" in lines[1]
    assert _request(2).job_id[:8] in lines[1]
    assert lines[-1].endswith(
        "1 unknown, 1 failed, 1 rejected, 1 deferred, 1 open, 1 completed"
        " · $0.52 held for what is open, up to $0.52 paid for what is unknown"
    )


def test_the_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    """Every job in a row, the completed ones too; the counts sum up to them."""
    _every_state()
    assert main(["status", "--json", "--target", "videos"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["counts", "cost_usd", "rows"]
    assert sum(document["counts"].values()) == len(document["rows"]) == 6
    assert document["cost_usd"] == pytest.approx(0.52 + PRICE_USD)
    assert list(document["rows"][0]) == list(Entry.model_fields)
    assert document["rows"][0]["state"] == "unknown"


def test_an_empty_target_has_no_jobs_yet(capsys: pytest.CaptureFixture[str]) -> None:
    """No table, one line, exit code 0."""
    assert main(["status"]) == 0
    assert capsys.readouterr().out == "./videos: no jobs yet\n"
    assert main(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"counts": {}, "cost_usd": 0, "rows": []}


def test_a_target_that_does_not_fit_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback."""
    assert main(["status", "--target", "nonsense://x"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "nonsense" in told.err
    assert "Traceback" not in told.err


def test_it_needs_neither_a_key_nor_prefect() -> None:
    """Nothing of Prefect is loaded, and it starts quickly."""
    _every_state()
    code = (
        "import sys; from deployments.cli import main\n"
        "code = main(['status'])\n"
        "print(code, [name for name in ('prefect', 'av', 'PIL') if name in sys.modules])"
    )
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert ended.stdout.endswith("0 []\n")
    assert time.monotonic() - started < 10

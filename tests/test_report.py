"""The report: counts, spend and open jobs of a ledger, as artifacts, at a cost that does not grow with the archive."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from prefect import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

from flows.generate import generate
from flows.outcomes import carried, outcome_of
from flows.report import report
from tasks.jobs import Generation, Record, Request, VideoFacts, now
from tasks.ledger import Failure, Ledger
from tasks.report import Report, report_on
from tasks.storage import Storage
from tests.conftest import CHELSEA
from tests.test_status import PRICE_USD, _request

if TYPE_CHECKING:
    from collections.abc import Sequence


def _record(request: Request, *, days_ago: float = 0.0, cost_usd: float | None = PRICE_USD) -> Record:
    at = now() - timedelta(days=days_ago)
    return Record(
        **request.model_dump(include={"job_id", "effect", "duration", "model", "take"}),
        sources=request.sources,
        attempt=1,
        generation_id="g",
        client_request_id=request.client_request_id(1),
        cost_usd=cost_usd,
        submitted_at=at,
        seen_at=at,
        stored_at=at,
        seconds=90.0,
        looks=3,
        video="video.mp4",
        poster=None,
        facts=VideoFacts(sha256="0" * 64, size=1, seconds=5, width=1, height=1, frames=120, codec="h264", sound=None),
        versions={},
    )


async def _finished(ledger: Ledger, record: Record) -> str:
    path = f"{ledger.folder(record)}/metadata.json"
    await ledger.storage.write(path, record.model_dump_json().encode())
    if ledger.storage.local:
        os.utime(Path(ledger.storage.url, path), (record.stored_at.timestamp(),) * 2)
    return path


@pytest.fixture
async def ledger() -> Ledger:
    """Three videos of today and one of last month; one job open, one failed, one that was only begun."""
    ledger = Ledger(Storage("videos"))
    await _finished(ledger, _record(_request(0)))
    await _finished(ledger, _record(_request(1), cost_usd=None))
    await _finished(ledger, _record(_request(2, "squish"), cost_usd=0.605))
    await _finished(ledger, _record(_request(3), days_ago=30))
    open_, failed = _request(4), _request(5, "kiss")
    for request in (open_, failed, _request(6)):
        await ledger.open(request)
    await ledger.claim(open_, 1)
    await ledger.record_generation(Generation(request=open_, attempt=1, id="g", submitted_at=now()))
    await ledger.claim(failed, 1)
    failure = Failure(kind="face_detection_error", reason="no face", again=False, counts=True, at=now())
    await ledger.record_failure(failed, 1, failure)
    return ledger


async def _artifacts(state: Any) -> dict[str, Any]:  # noqa: ANN401
    async with get_client() as client:
        of_this_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[state.state_details.flow_run_id]))
        return {str(artifact.key): artifact for artifact in await client.read_artifacts(artifact_filter=of_this_run)}


async def _run(**parameters: object) -> Any:  # noqa: ANN401
    flow: Any = report
    return await flow(**parameters, return_state=True)


@pytest.mark.usefixtures("prefect_api", "ledger")
async def test_a_run_shows_counts_spend_and_every_job_that_needs_somebody() -> None:
    """The state has the counts; a table has the jobs with what to do next; a page has the money. No key is needed."""
    state = await _run()
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    since = f"{datetime.now(UTC) - timedelta(days=7):%Y-%m-%d}"
    assert state.is_completed()
    assert state.message == f"1 failed, 1 deferred, 1 open, 4 completed; 3 videos for $1.12 since {since}"
    artifacts = await _artifacts(state)
    assert set(artifacts) == {"report-jobs", "report-summary"}
    rows = json.loads(artifacts["report-jobs"].data)
    assert [(row["state"], row["effect"]) for row in rows] == [("failed", "kiss"), ("deferred", "hug"), ("open", "hug")]
    assert rows[0]["why"] == "face_detection_error: no face"
    assert "other photos" in rows[0]["next"]
    page = artifacts["report-summary"].data
    assert "| failed | 1 |" in page
    assert f"| {today} | hug | 2 | 0.52 | and 1 of which the provider told no price |" in page
    assert f"| {today} | squish | 1 | 0.60 |  |" in page
    assert "$0.52 held for what is open" in page


@pytest.mark.usefixtures("prefect_api", "sandbox")
async def test_it_tells_what_a_real_run_cost() -> None:
    """By the figure in the video's own metadata."""
    flow: Any = generate
    outcome = outcome_of(await flow("squish", [CHELSEA], return_state=True))
    made = carried(await _run(), Report)
    assert (made.videos, made.spent_usd, made.counts) == (1, outcome.cost_usd, {"completed": 1})
    assert outcome.cost_usd > 0


@pytest.mark.usefixtures("prefect_api")
async def test_an_empty_target_is_a_report_too() -> None:
    """The first morning."""
    state = await _run(target="memory://nothing-yet")
    assert state.is_completed()
    assert state.message.startswith("no jobs yet; 0 videos for $0.00 since ")


@pytest.mark.usefixtures("prefect_api")
async def test_a_target_that_cannot_be_read_fails_with_one_line() -> None:
    """Nobody takes it for a report of nothing."""
    state = await _run(target="nowhere://bucket")
    assert state.is_failed()
    assert "the target does not fit" in state.message


class _Counting(Storage):
    """A storage that knows what was read from it."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.reads: list[str] = []
        self.listings: list[str] = []

    async def read(self, path: str) -> bytes | None:
        self.reads.append(path)
        return await super().read(path)

    async def list(self, folder: str) -> tuple[str, ...]:
        self.listings.append(folder)
        return await super().list(folder)

    async def times(self, folder: str) -> dict[str, datetime | None]:
        self.listings.append(folder)
        return await super().times(folder)


@pytest.mark.usefixtures("ledger")
async def test_it_reads_what_is_unfinished_or_young_and_lists_once() -> None:
    """Whatever the archive holds: a video of last month is counted, and its metadata is left alone."""
    storage = _Counting("videos")
    old = f"{Ledger.folder(_request(3))}/metadata.json"
    made = await report_on(Ledger(storage), days=7, max_attempts=2)
    assert made.counts["completed"] == 4
    assert storage.listings == [""]
    assert old not in storage.reads
    assert sum(path.endswith("metadata.json") for path in storage.reads) == 3
    longer = await report_on(Ledger(storage), days=60, max_attempts=2)
    assert longer.videos == 4
    assert longer.spent_usd == pytest.approx(made.spent_usd + PRICE_USD)


async def test_a_store_that_tells_no_times_is_read_and_told_right() -> None:
    """Slower, but neither a video of today is missed nor one of last month taken for it."""
    ledger = Ledger(Storage("memory://times/out"))
    await _finished(ledger, _record(_request(0)))
    await _finished(ledger, _record(_request(1), days_ago=30))
    assert set((await ledger.storage.times("")).values()) == {None}
    made = await report_on(ledger, days=7, max_attempts=2)
    assert (made.videos, made.counts) == (1, {"completed": 2})


async def test_the_times_of_a_bucket_are_the_buckets_own(s3: str) -> None:
    """One listing tells them all: nothing is asked file by file."""
    ledger = Ledger(Storage(f"{s3}/out"))
    path = await _finished(ledger, _record(_request(0)))
    times: dict[str, datetime | None] = await ledger.storage.times("")
    assert list(times) == [path]
    stored = times[path]
    assert stored
    assert abs(stored.timestamp() - time.time()) < 600
    assert (await report_on(ledger, days=7, max_attempts=2)).spent_usd == PRICE_USD


async def test_metadata_that_cannot_be_read_costs_nobody_the_report(ledger: Ledger) -> None:
    """The video counts as there; what it cost is not known."""
    await ledger.storage.write(f"{ledger.folder(_request(0))}/metadata.json", b"{")
    made = await report_on(ledger, days=7, max_attempts=2)
    assert made.counts["completed"] == 4
    assert made.videos == 2


def _days(made: Report) -> Sequence[str]:
    return [str(row.day) for row in made.spend]


async def test_spend_is_told_by_day_latest_first() -> None:
    """Days are those of UTC."""
    ledger = Ledger(Storage("videos"))
    for take, days_ago in enumerate((2, 0, 1, 1)):
        await _finished(ledger, _record(_request(take), days_ago=days_ago))
    made = await report_on(ledger, days=7, max_attempts=2)
    today = datetime.now(UTC).date()
    assert _days(made) == [str(today), str(today - timedelta(days=1)), str(today - timedelta(days=2))]
    assert [row.videos for row in made.spend] == [1, 2, 1]

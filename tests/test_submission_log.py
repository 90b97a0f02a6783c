"""The provider's log, where the ids of lost answers are found: shared readings, whole readings, honest answers."""

from __future__ import annotations

import asyncio

import pytest

from tasks import submission_log
from tasks.answers import LogRow
from tasks.errors import ProviderBusy
from tasks.submission_log import PAGE_ROWS, SubmissionLog


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pace is looked at in a test of its own."""
    monkeypatch.setattr(submission_log, "REQUEST_PAUSE_S", 0.0)


class FakeLog:
    """Pages of rows, newest first, and what was asked for."""

    def __init__(self, rows: list[LogRow]) -> None:
        self.rows = rows
        self.asked: list[tuple[str, int]] = []

    async def page(self, period: str, limit: int, offset: int) -> list[LogRow]:
        """One page, a little later."""
        self.asked.append((period, offset))
        await asyncio.sleep(0.01)
        return self.rows[offset : offset + limit]


def _row(name: str | None, generation_id: str | None = "id") -> LogRow:
    return LogRow(name, generation_id, 0.5)


async def test_a_row_on_a_later_page_is_found() -> None:
    """Pages are read until the row is there or the log ends."""
    log = FakeLog([_row(f"other{n}") for n in range(250)] + [_row("mine")])
    found = await SubmissionLog(log.page).find("mine", age_s=60)
    assert found == _row("mine")
    assert log.asked == [("1h", 0), ("1h", PAGE_ROWS), ("1h", 2 * PAGE_ROWS)]


@pytest.mark.parametrize("order", [1, -1])
async def test_a_refusal_under_the_same_id_does_not_hide_the_acceptance(order: int) -> None:
    """A 429 that was repeated and then accepted leaves two rows; only the one with an id says anything."""
    rows = [_row("mine", "paid"), _row("mine", None)][::order]
    found = await SubmissionLog(FakeLog(rows).page).find("mine", age_s=60)
    assert found == _row("mine", "paid")


async def test_a_row_without_an_id_is_looked_at_again() -> None:
    """It is not remembered: the id may be there the next time."""
    log = FakeLog([_row("mine", None)])
    shared = SubmissionLog(log.page)
    assert await shared.find("mine", age_s=60) is None
    log.rows = [_row("mine", "paid")]
    assert await shared.find("mine", age_s=60) == _row("mine", "paid")


async def test_many_look_ups_at_once_share_readings() -> None:
    """Forty unknown jobs cost a few readings, not forty."""
    log = FakeLog([])
    shared = SubmissionLog(log.page)
    assert await asyncio.gather(*(shared.find(f"job{n}", age_s=60) for n in range(40))) == [None] * 40
    assert len(log.asked) <= 3


async def test_an_old_submission_is_not_declared_missing_by_readings_of_the_last_hour() -> None:
    """The period covers the age; a longer reading serves shorter questions, not the other way round."""
    log = FakeLog([])
    shared = SubmissionLog(log.page)
    ages: list[float | None] = [60.0, 60.0, 60.0, 3 * 86_400.0, 60.0, None]
    await asyncio.gather(*(shared.find(f"job{n}", age_s=age) for n, age in enumerate(ages)))
    periods = [period for period, _ in log.asked]
    assert "7d" in periods
    assert "30d" in periods


async def test_a_log_without_an_end_is_told_and_not_taken_for_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """None means that it was read to its end."""
    monkeypatch.setattr(submission_log, "MOST_PAGES", 2)
    log = FakeLog([_row("other")] * 1000)
    with pytest.raises(ProviderBusy):
        await SubmissionLog(log.page).find("mine", age_s=60)


async def test_readings_keep_the_pace_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are apart by the pause, however many ask."""
    monkeypatch.setattr(submission_log, "REQUEST_PAUSE_S", 0.1)
    log = FakeLog([_row("other")] * 450)
    started = asyncio.get_running_loop().time()
    await SubmissionLog(log.page).find("mine", age_s=60)
    assert len(log.asked) == 5
    assert asyncio.get_running_loop().time() - started >= 0.4

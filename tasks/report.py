"""The report: how the jobs of a target stand, and what the videos of the last days cost.

It costs one listing of the target, the documents of what is unfinished, and the metadata of what was finished in the
days that are asked for. It does not grow with the archive beyond the listing: which videos are that young is told by
the store's own times.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.errors import JobState  # noqa: TC001 - pydantic reads it
from tasks.jobs import Record, now, public_url
from tasks.survey import Entry, each, survey

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tasks.ledger import Ledger

CLOCKS_DIFFER = timedelta(hours=1)
"""Between a worker and a store: what was written within this of the days in question is looked at."""


class Spend(BaseModel):
    """What was made of one effect on one day.

    Attributes:
        day: UTC, when the videos were stored.
        usd: their price, by the provider's own figures.
        unpriced: videos of these for which the provider gave no figure.
    """

    model_config = ConfigDict(frozen=True)

    day: date
    effect: str
    videos: int
    usd: float
    unpriced: int = 0


class Report(BaseModel):
    """What a target has come to.

    Attributes:
        since: the first moment that `spend` is about.
        counts: all jobs by state, what needs a person first.
        spend: by day, latest first, and effect.
        held_usd: for what is open.
        perhaps_usd: paid for what is unknown, at most.
        jobs: every job that has no video, what needs a person first.
    """

    model_config = ConfigDict(frozen=True)

    target: str
    at: datetime
    since: datetime
    counts: dict[JobState, int]
    spend: tuple[Spend, ...]
    held_usd: float
    perhaps_usd: float
    jobs: tuple[Entry, ...]

    @property
    def videos(self) -> int:
        """Made in these days."""
        return sum(spend.videos for spend in self.spend)

    @property
    def spent_usd(self) -> float:
        """For them."""
        return round(sum(spend.usd for spend in self.spend), 6)

    @property
    def line(self) -> str:
        """Such as `2 open, 40 completed; 12 videos for $6.18 since 2026-11-20`."""
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items()) or "no jobs yet"
        return f"{counts}; {self.videos} videos for ${self.spent_usd:.2f} since {self.since:%Y-%m-%d}"


async def report_on(ledger: Ledger, *, days: int, max_attempts: int) -> Report:
    """The report of a ledger.

    Args:
        ledger: whose target is listed, once.
        days: how far back the spend is added up.
        max_attempts: as in the settings; see `survey`.

    Raises:
        StorageError: the target cannot be listed or read.
    """
    at = now()
    since = at - timedelta(days=days)
    written = await ledger.storage.times("")
    entries = await survey(ledger, max_attempts=max_attempts, names=tuple(written))
    metadata = [f"{entry.effect}/{entry.job_id}/metadata.json" for entry in entries if entry.state == "completed"]
    recent = [path for path in metadata if (stored := written[path]) is None or stored >= since - CLOCKS_DIFFER]
    records = await each(lambda path: _record(path, ledger), recent)
    return Report(
        target=public_url(ledger.storage.url),
        at=at,
        since=since,
        counts=dict(Counter(entry.state for entry in entries)),
        spend=_spend(record for record in records if record and record.stored_at >= since),
        held_usd=_usd(entries, "open"),
        perhaps_usd=_usd(entries, "unknown"),
        jobs=tuple(entry for entry in entries if entry.reason),
    )


async def _record(path: str, ledger: Ledger) -> Record | None:
    try:
        return Record.model_validate_json(await ledger.storage.read(path) or b"")
    except ValidationError:
        return None  # what cannot be read was never said


def _spend(records: Iterable[Record]) -> tuple[Spend, ...]:
    made: dict[tuple[date, str], list[float | None]] = {}
    for record in records:
        made.setdefault((record.stored_at.astimezone(UTC).date(), record.effect), []).append(record.cost_usd)
    spend = [
        Spend(
            day=day,
            effect=effect,
            videos=len(costs),
            usd=round(sum(cost or 0.0 for cost in costs), 6),
            unpriced=costs.count(None),
        )
        for (day, effect), costs in made.items()
    ]
    return tuple(sorted(spend, key=lambda row: (-row.day.toordinal(), row.effect)))


def _usd(entries: Iterable[Entry], state: JobState) -> float:
    return round(sum(entry.cost_usd or 0.0 for entry in entries if entry.state == state), 6)

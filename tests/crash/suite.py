"""Many schedules side by side, and the table that they come to."""

from __future__ import annotations

import logging
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.crash.mutations import MUTATIONS
from tests.crash.schedule import Report, dying_schedule, random_schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

PROCESSES = 2
CHUNK = 50

Deaths = tuple[tuple[int, bool], ...]


@dataclass
class Tally:
    """The sums of many reports; `broken` holds those in which a promise was."""

    name: str
    seeds: str
    schedules: int = 0
    runs: int = 0
    killed: int = 0
    billed: int = 0
    double_payments: int = 0
    lost_videos: int = 0
    unnamed: int = 0
    broken: list[Report] = field(default_factory=list)

    def add(self, reports: Iterable[Report]) -> Tally:
        """Count reports in."""
        for report in reports:
            self.schedules += 1
            for name in ("runs", "killed", "billed", "double_payments", "lost_videos", "unnamed"):
                setattr(self, name, getattr(self, name) + getattr(report, name))
            if report.violations:
                self.broken.append(report)
        return self


def random_tally(first_seed: int, schedules: int) -> Tally:
    """Random schedules with consecutive seeds."""
    seeds = range(first_seed, first_seed + schedules)
    return Tally("at random", f"{seeds[0]}-{seeds[-1]}").add(_side_by_side(_random, _chunks(list(seeds))))


def dying_tally(pairs: int) -> Tally:
    """Death at every I/O operation in turn, before and after it took effect; and at every n-th pair of them."""
    operations = dying_schedule([(-1, False)]).operations
    points = [(number, after) for number in range(operations) for after in (False, True)]
    deaths: list[Deaths] = [(point,) for point in points]
    every_pair = [(first, second) for first in points for second in points]
    deaths += every_pair[:: max(1, len(every_pair) // pairs)]
    return Tally("at each operation", "all").add(_side_by_side(_dying, _chunks(deaths)))


def mutation_table(schedules: int) -> dict[str, str]:
    """Each rule broken once: the first violation that was seen, or an empty text where nothing was noticed."""
    with _pool() as pool:
        return dict(zip(MUTATIONS, pool.map(_mutated, MUTATIONS, [schedules] * len(MUTATIONS)), strict=True))


def as_table(tallies: Sequence[Tally]) -> str:
    """What is printed at the end."""
    names = ("schedules", "runs", "killed", "billed", "double payments", "lost videos", "without a named state")
    lines = [f"{'crash schedules':<20}{'seeds':<16}" + "  ".join(names)]
    for tally in tallies:
        numbers = (
            *(tally.schedules, tally.runs, tally.killed, tally.billed),
            *(tally.double_payments, tally.lost_videos, tally.unnamed),
        )
        cells = "  ".join(f"{number:>{len(name)}}" for name, number in zip(names, numbers, strict=True))
        lines.append(f"{tally.name:<20}{tally.seeds:<16}{cells}")
    return "\n".join(lines)


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn"), initializer=_quiet)


def _side_by_side(work: Callable[[list[Any]], list[Report]], chunks: list[list[Any]]) -> Iterator[Report]:
    with _pool() as pool:
        for reports in pool.map(work, chunks):
            yield from reports


def _chunks(items: Sequence[Any]) -> list[list[Any]]:
    return [list(items[n : n + CHUNK]) for n in range(0, len(items), CHUNK)]


def _quiet() -> None:
    logging.getLogger("effects").setLevel(logging.CRITICAL)


def _random(seeds: list[int]) -> list[Report]:
    return [random_schedule(seed) for seed in seeds]


def _dying(deaths: list[Deaths]) -> list[Report]:
    return [dying_schedule(death) for death in deaths]


def _mutated(name: str, schedules: int) -> str:
    with pytest.MonkeyPatch.context() as patch:
        MUTATIONS[name](patch)
        for seed in range(schedules):
            if violations := random_schedule(seed).violations:
                return f"seed {seed}: {violations[0]}"
    return ""

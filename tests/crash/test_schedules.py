"""Pay once, lose nothing: proved by crashing everywhere, in virtual time, with seeds that can be replayed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.crash.mutations import MUTATIONS
from tests.crash.schedule import random_schedule
from tests.crash.suite import as_table, dying_tally, mutation_table, random_tally

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEDULES = 2000
PAIRS = 300
MUTATED_SCHEDULES = 400


@pytest.mark.timeout(400)
def test_no_schedule_pays_twice_loses_a_video_or_leaves_a_job_without_a_name(show: Callable[[str], None]) -> None:
    """Death at every I/O operation, and 2,000 schedules of crashes, stalls, lies and races at random."""
    tallies = [dying_tally(PAIRS), random_tally(0, SCHEDULES)]
    show(as_table(tallies))
    assert [report for tally in tallies for report in tally.broken] == []
    assert tallies[1].killed > SCHEDULES / 10, "the schedules have to be dangerous"
    assert tallies[1].billed > SCHEDULES / 2


@pytest.mark.timeout(400)
def test_breaking_any_rule_of_the_ledger_is_noticed(show: Callable[[str], None]) -> None:
    """Each rule broken once; a suite that does not notice has proved nothing."""
    table = mutation_table(MUTATED_SCHEDULES)
    show("\n".join(f"{name:<30} {noticed or 'NOT NOTICED'}" for name, noticed in table.items()))
    assert set(table) == set(MUTATIONS)
    assert [name for name, noticed in table.items() if not noticed] == []


def test_a_seed_is_replayed_exactly() -> None:
    """The same seed comes to the same end."""
    assert random_schedule(41) == random_schedule(41)

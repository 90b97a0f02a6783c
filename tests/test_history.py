"""What is kept of earlier waits: bounded, mergeable, and never in the way."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.durations import Took
from tasks.history import KEPT, History, Waited

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


def wait(number: int, *, after_s: float = 90.0, by_s: float | None = 100.0) -> Waited:
    """The same number is the same generation."""
    return Waited(generation_id=f"id-{number}", after_s=after_s, by_s=by_s, at=NOON + timedelta(seconds=number))


def kept(*waits: Waited) -> History:
    return History(model="pixverse/v5/image-to-video", effect="squish", duration=5, waits=waits)


def read(text: str | bytes) -> History:
    return History.read(text, model="pixverse/v5/image-to-video", effect="squish", duration=5)


histories = st.lists(st.integers(0, 300), max_size=150).map(lambda numbers: kept(*map(wait, numbers)))


@settings(deadline=None, max_examples=40, derandomize=True)
@given(histories, histories, histories)
def test_writers_may_merge_in_any_order(one: History, two: History, three: History) -> None:
    """And as often as they like: nobody has to know who was first."""
    assert one.merged(two) == two.merged(one)
    assert one.merged(two).merged(three) == one.merged(two.merged(three))
    assert one.merged(two).merged(two) == one.merged(two)
    assert len(one.merged(two).waits) <= KEPT


@settings(deadline=None, max_examples=20, derandomize=True)
@given(histories)
def test_it_survives_the_file(history: History) -> None:
    """Waits that nobody saw the end of included."""
    history = history.merged(kept(wait(1000, by_s=None)))
    assert read(history.model_dump_json()) == history
    assert history.samples[-1] == Took(90.0, math.inf, 0)


def test_the_latest_are_kept_oldest_first() -> None:
    """Whatever order they come in."""
    history = kept(*map(wait, reversed(range(KEPT + 7))))
    assert [one.generation_id for one in history.waits] == [f"id-{number}" for number in range(7, KEPT + 7)]


def test_a_generation_counts_once_and_as_it_is_known_best() -> None:
    """It was given up by one run, and found done by another."""
    given_up, done = wait(1, by_s=None), wait(1)
    for history in (kept(given_up, done), kept(done, given_up), kept(given_up).merged(kept(done))):
        assert history.waits == (done,)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "{}", '{"waits": 3}', b"\xff\x00"])
def test_what_cannot_be_read_is_an_empty_history(text: str | bytes) -> None:
    """It costs looks, never a video."""
    assert read(text) == kept()


def test_what_makes_no_sense_in_it_is_passed_over() -> None:
    """The rest still counts."""
    bad = (
        '{"generation_id": "a", "after_s": 9, "by_s": 3, "at": "2026-05-01T12:00:00Z"}, '
        '{"generation_id": "b", "after_s": -9, "by_s": 3, "at": "2026-05-01T12:00:00Z"}, '
        '{"generation_id": "c", "after_s": 9, "by_s": 30, "at": "2026-05-01T12:00:00"}, 7, null'
    )
    text = kept(wait(1)).model_dump_json()
    assert read(text.replace('"waits":[', f'"waits":[{bad}, ')) == kept(wait(1))


def test_models_effects_and_durations_do_not_mix() -> None:
    """Neither in the name of the file nor in what is read from it."""
    others = [
        History(model="pixverse/v5/image-to-video", effect="squish", duration=8),
        History(model="pixverse/v5/image-to-video", effect="squi-sh", duration=5),
        History(model="pixverse-v5-image-to-video", effect="squish", duration=5),
    ]
    assert len({history.name for history in [*others, kept()]}) == 4
    for other in others:
        assert read(other.model_copy(update={"waits": (wait(1),)}).model_dump_json()) == kept()
        with pytest.raises(ValueError, match="is not"):
            kept().merged(other)
    assert kept().name.startswith("pixverse-v5-image-to-video-squish-5-")

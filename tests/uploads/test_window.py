"""How arrivals are grouped, on a clock that stands where the test puts it."""

from __future__ import annotations

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from deployments.uploads.arrival import Arrival
from deployments.uploads.window import FOLDERS_PER_EVENT, Window


def arrival(key: str, version: str = "1") -> Arrival:
    return Arrival("s3", "photos", key, version)


def test_it_closes_when_nothing_came_for_a_while() -> None:
    """Each arrival opens it anew for the quiet time."""
    window = Window(quiet_s=2, longest_s=8)
    assert window.closes_at() is None
    window.add("hug/anna", arrival("hug/anna/1.jpg"), 100)
    assert window.closes_at() == 102
    window.add("hug/anna", arrival("hug/anna/2.jpg"), 101.5)
    assert window.closes_at() == 103.5
    [group] = window.close()
    assert (group.folders, group.files) == (("hug/anna",), 2)
    assert window.closes_at() is None
    assert window.close() == ()


def test_it_closes_at_last_however_busy_it_is() -> None:
    """Else a steady stream would never be told of."""
    window = Window(quiet_s=2, longest_s=8)
    for second in range(100, 108):
        window.add("squish/cat.jpg", arrival(f"squish/{second}.jpg"), second)
    assert window.closes_at() == 108


def test_a_burst_is_told_in_a_few_events_and_no_upload_in_two() -> None:
    """A thousand folders of two photos each, mixed."""
    window, photos = Window(), [(f"hug/{number}", side) for number in range(1000) for side in "lr"]
    random.Random(1).shuffle(photos)  # noqa: S311
    for folder, side in photos:
        window.add(folder, arrival(f"{folder}/{side}.jpg"), 0)
    groups = window.close()
    assert len(groups) == 1000 / FOLDERS_PER_EVENT
    assert sorted(folder for group in groups for folder in group.folders) == sorted({folder for folder, _ in photos})
    assert all(group.files == 2 * len(group.folders) for group in groups)


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=8, unique=True), st.randoms())
def test_the_same_arrivals_make_the_same_event_in_any_order(told: list[tuple[str, str]], chance: random.Random) -> None:
    """And any other makes another one."""
    arrivals = [arrival(f"hug/{name}/1.jpg", version) for name, version in told]
    ids = []
    for count in (len(arrivals), len(arrivals), len(arrivals) - 1):
        some = arrivals[:count]
        chance.shuffle(some)
        window = Window()
        for one in some:
            window.add("hug/x", one, 0)
        ids += [group.id for group in window.close()]
    assert ids[0] == ids[1]
    assert all(one != other for one, other in pairwise(ids[1:]))


def test_one_arrival_s_event_has_its_own_id() -> None:
    """Derived from bucket, key and version alone."""
    window, one = Window(), arrival("hug/anna/1.jpg")
    window.add("hug/anna", one, 0)
    assert [group.id for group in window.close()] == [one.id]


def test_what_a_log_calls_it() -> None:
    """One line, whatever the folder is called."""
    window = Window()
    titles = []
    for folders in (["hug/anna"], ["hug/anna\n2026 ERROR"], ["hug/anna", "hug/ben"]):
        for folder in folders:
            window.add(folder, arrival(f"{folder}/1.jpg"), 0)
        titles += [group.title for group in window.close()]
    assert titles == ["hug/anna", r"'hug/anna\n2026 ERROR'", "2 folders"]


def test_a_file_that_grew_meanwhile_counts_once() -> None:
    """A watched folder tells of every write."""
    window = Window()
    for size in "123":
        window.add("squish/cat.jpg", arrival("squish/cat.jpg", size), 0)
    [group] = window.close()
    assert (group.files, len(group.arrivals)) == (1, 3)

"""Looks: when to ask whether a generation is over. Pure functions: no clock, no I/O, no Prefect.

A look costs something and so does every second that a finished video lies unseen. Given how likely the generation is
over by when (`tasks.durations`), the looks with the least expected sum of both follow by dynamic programming
(Barlow, Hunter and Proschan 1963: optimum checking procedures).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from tasks.durations import PRIOR, Prior, Took, believe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tasks.durations import Belief

PRICE_OF_A_LOOK_S = 1.0
"""One look is worth so many seconds of a finished video's lying there."""

MOST_LOOKS = 50
"""Prefect takes no more delays than this, and repeats the last."""

PREMIUM = 1.06
"""A plan may cost so much more than the best for what the history says, to be insured against its being wrong…"""

DOUBTS = (0.5, 0.4, 0.3, 0.22, 0.16, 0.12, 0.08, 0.05, 0.03, 0.02)
"""…by the most of these shares of doubt that this pays for. Doubt is cheap where durations differ widely, and dear
where they hardly do or where the history is much slower than the prior."""

HALVINGS = 8
"""Of the interval in which the toll on looks is sought."""

JITTER = 0.1
"""A look comes later by up to this share of the time to the next one."""


def plan_looks(
    history: Sequence[Took],
    *,
    prior: Prior = PRIOR,
    timeout_s: float,
    price_of_a_look_s: float = PRICE_OF_A_LOOK_S,
    elapsed_s: float = 0.0,
) -> tuple[float, ...]:
    """When to look, in seconds since the submission: rising, at most `MOST_LOOKS`, the last at `timeout_s`.

    The same arguments but for `elapsed_s` share one calculation of 2 to 6 ms, after which a plan costs microseconds.

    Args:
        history: earlier waits for the same model, effect and duration, oldest first.
        prior: what to expect without a history.
        timeout_s: when waiting ends, in seconds since the submission.
        price_of_a_look_s: more means fewer looks and more lateness: about twice as late for four times the price.
        elapsed_s: the generation is known to have been running by then: the looks after it. Where that was a planned
            look, the rest of the plan.

    Returns:
        The looks; none where the wait is over.

    Raises:
        ValueError: a number that is not positive and finite.
    """
    for name, value in {"timeout_s": timeout_s, "price_of_a_look_s": price_of_a_look_s, **prior._asdict()}.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite, not {value}")
    times, following = _plan(tuple(history), prior, timeout_s, price_of_a_look_s)
    return _looks(times, following, bisect_left(times, elapsed_s))


def delays_s(looks: Sequence[float], elapsed_s: float = 0.0) -> tuple[float, ...]:
    """The same looks as pauses, the first of them from `elapsed_s` on."""
    return tuple(look - before for before, look in zip([elapsed_s, *looks], looks, strict=False))


def jittered(looks: Sequence[float], fraction: float) -> tuple[float, ...]:
    """The same looks, a little later each, so that many jobs of one plan do not look in the same second.

    Never earlier: before the first there is nothing to see. The last stays where it is, at the end of the wait.

    Args:
        looks: see `plan_looks`.
        fraction: the job's own, from 0 up to 1: `random()`, or the job id's.
    """
    return (
        *(look + fraction * JITTER * (after - look) for look, after in pairwise(looks)),
        *looks[-1:],
    )


@lru_cache(maxsize=128)
def _plan(
    history: tuple[Took, ...], prior: Prior, timeout_s: float, price_s: float
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """The times that were considered, and for each of them which one to look at next."""
    belief = believe(history, prior, timeout_s)
    table = _insured(belief, price_s)
    following = _best(table, price_s)
    if _fits(table, following):
        return belief.times_s, tuple(following)
    # Too many. A toll on every look, whether it comes to it or not, thins them out where they are hardly ever reached.
    little, enough = 0.0, price_s
    while not _fits(table, _best(table, price_s, enough)):
        little, enough = enough, enough * 8
    for _ in range(HALVINGS):
        middle = (little + enough) / 2
        little, enough = (little, middle) if _fits(table, _best(table, price_s, middle)) else (middle, enough)
    return belief.times_s, tuple(_best(table, price_s, enough))


def _insured(belief: Belief, price_s: float) -> _Table:
    """What the history says, with as much doubt as the premium pays for."""
    history = _Table(belief.times_s, belief.done)
    most = PREMIUM * _cost(history, _best(history, price_s), price_s)
    for share in DOUBTS:
        done = [(1 - share) * told + share * doubt for told, doubt in zip(belief.done, belief.doubt, strict=True)]
        doubted = _Table(belief.times_s, done)
        if _cost(history, _best(doubted, price_s), price_s) <= most:
            return doubted
    return history


def _fits(table: _Table, following: Sequence[int]) -> bool:
    # A plan that starts between two looks of another may hold one more than it does: hence one less here.
    return len(_looks(table.times, following, 0)) < MOST_LOOKS


def _looks(times: Sequence[float], following: Sequence[int], at: int) -> tuple[float, ...]:
    looks = []
    while at < len(times) - 1:
        at = following[at]
        looks.append(times[at])
    return tuple(looks)


class _Table:
    """Sums over a belief, one for each of its times: how likely it is still running, and the integral of what ended."""

    def __init__(self, times_s: Sequence[float], done: Sequence[float]) -> None:
        self.times = times_s
        self.running = [1 - share for share in done]
        steps = ((b - a) * (u + t) / 2 for a, b, t, u in zip(done, done[1:], times_s, times_s[1:], strict=False))
        self.ended = [0.0, *accumulate(steps)]


def _cost(table: _Table, following: Sequence[int], price_s: float) -> float:
    """What is to be expected of a plan, in seconds."""
    at, cost = 0, 0.0
    while at < len(table.times) - 1:
        j = following[at]
        cost += price_s * table.running[at] + table.times[j] * (table.running[at] - table.running[j])
        cost -= table.ended[j] - table.ended[at]
        at = j
    return cost


def _best(table: _Table, price_s: float, toll_s: float = 0.0) -> list[int]:
    """For each time at which it is still running, the best one for the next look.

    With S(i) the probability that it is still running at time t(i), the cost from i on is

        W(i) = min over j > i of  toll + price x S(i) + the integral of t(j) - t over what ends from i to j + W(j)
             = toll + price x S(i) + M(i)  +  min over j of  t(j) x S(i) + (W(j) - t(j) x S(j) - M(j)),

    M(i) being the integral of t over what ended by i. The inner minimum is over straight lines in S(i), whose slopes
    t(j) fall as i goes backwards while S(i) rises: their lower hull is kept as they come, and the pointer into it
    only ever moves on. So all of it takes time in proportion to the grid (the convex hull trick).
    """
    times, running, ended = table.times, table.running, table.ended
    end = len(times) - 1
    following = [end] * (end + 1)
    hull: list[tuple[float, float, int]] = []
    best, cost = 0, 0.0
    for i in range(end - 1, -1, -1):
        j = i + 1
        slope, height = times[j], cost - times[j] * running[j] - ended[j]
        while len(hull) - best > 1 and _hidden(hull[-2], hull[-1], slope, height):
            hull.pop()
        hull.append((slope, height, j))
        while len(hull) - best > 1 and _at(hull[best + 1], running[i]) <= _at(hull[best], running[i]):
            best += 1
        following[i] = hull[best][2]
        cost = toll_s + price_s * running[i] + ended[i] + _at(hull[best], running[i])
    return following


def _at(line: tuple[float, float, int], x: float) -> float:
    return line[0] * x + line[1]


def _hidden(before: tuple[float, float, int], line: tuple[float, float, int], slope: float, height: float) -> bool:
    """The new line takes over from the one before the last no later than the last one does."""
    return (height - before[1]) * (before[0] - line[0]) <= (line[1] - before[1]) * (before[0] - slope)

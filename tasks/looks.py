"""Looks: when to ask whether a generation is over. Pure functions: no clock, no I/O, no Prefect.

A look costs something and so does every second that a finished video lies unseen. Given how likely the generation is
over by when (`tasks.durations`), the looks with the least expected sum of both follow by dynamic programming
(Barlow, Hunter and Proschan 1963: optimum checking procedures).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from functools import lru_cache
from itertools import accumulate, chain, islice, repeat
from typing import TYPE_CHECKING

from tasks.durations import PRIOR, Prior, Took, believe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tasks.durations import Belief

PRICE_OF_A_LOOK_S = 1.0
"""One look is worth so many seconds of a finished video's lying there."""

LAST_SHARE, LAST_PRICE = 0.25, 1 / 16
"""A batch ends with its last video: what is late for that is late for all. So a look costs less where no more than this
share of the waits is left, in proportion, but never less than that share of its price."""

TAIL_SHARE, TAIL_STEP = 0.1, 1.1
"""Where no more than this share is still running, the next look comes before the age has grown by a tenth: of what
outlasts nearly all that was seen the history says next to nothing. For another price, by the root of it: as the pauses
of a plan do."""

PREMIUM = 1.06
"""A plan may cost so much more than the best for what the history says, to be insured against its being wrong…"""

DOUBTS = (0.5, 0.4, 0.3, 0.22, 0.16, 0.12, 0.08, 0.05, 0.03, 0.02)
"""…by the most of these shares of doubt that this pays for. Doubt is cheap where durations differ widely, and dear
where they hardly do or where the history is much slower than the prior."""

JITTER = 0.1
"""A look comes later by up to this share of the time to the next one."""


def price_of_a_look_s(share_left: float) -> float:
    """What a look costs, in seconds of lateness, while only a share of the waits that were under way is left.

    In powers of two: waits that pay the same share a plan.
    """
    price = min(1.0, max(LAST_PRICE, share_left / LAST_SHARE))
    return PRICE_OF_A_LOOK_S * float(2.0 ** round(math.log2(price)))


def plan_looks(
    history: Sequence[Took],
    *,
    prior: Prior = PRIOR,
    timeout_s: float,
    price_of_a_look_s: float = PRICE_OF_A_LOOK_S,
    elapsed_s: float = 0.0,
) -> tuple[float, ...]:
    """When to look, in seconds since the submission: rising, the last at `timeout_s`.

    The same arguments but for `elapsed_s` share one calculation of 5 to 10 ms, after which a plan costs microseconds.

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
    return tuple(_rest(history, prior, timeout_s, price_of_a_look_s, elapsed_s))


def next_look_s(
    history: Sequence[Took],
    *,
    elapsed_s: float,
    timeout_s: float,
    price_of_a_look_s: float = PRICE_OF_A_LOOK_S,
    jitter: float = 0.0,
) -> float:
    """When to look next, in seconds since the submission; `timeout_s` where the wait is over.

    Never earlier than planned: before the first look there is nothing to see.

    Args:
        history: see `plan_looks`; likewise the others.
        elapsed_s: it is known to have been running by then.
        timeout_s: when waiting ends, in seconds since the submission.
        price_of_a_look_s: see `plan_looks`.
        jitter: share of the pause after this look by which it comes later: the job's own, from 0 up to `JITTER`, so
            that many jobs of one plan do not look in the same second.
    """
    look, after = islice(chain(_rest(history, PRIOR, timeout_s, price_of_a_look_s, elapsed_s), repeat(timeout_s)), 2)
    return look + jitter * (after - look)


@lru_cache(maxsize=128)
def _plan(
    history: tuple[Took, ...], prior: Prior, timeout_s: float, price_s: float
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    """The times that were considered, and for each of them which one to look at next."""
    belief = believe(history, prior, timeout_s)
    table = _insured(belief, price_s)
    following = _best(table, price_s)
    step = 1 + (TAIL_STEP - 1) * math.sqrt(price_s / PRICE_OF_A_LOOK_S)
    for at, (time_s, done) in enumerate(zip(belief.times_s[:-1], belief.done, strict=False)):
        if 1 - done <= TAIL_SHARE:
            following[at] = min(following[at], max(at + 1, bisect_right(belief.times_s, time_s * step) - 1))
    return belief.times_s, tuple(following)


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


def _rest(history: Sequence[Took], prior: Prior, timeout_s: float, price_s: float, elapsed_s: float) -> Iterator[float]:
    """The looks of a plan that come after a moment."""
    times, following = _plan(tuple(history), prior, timeout_s, price_s)
    at = bisect_left(times, elapsed_s)
    while at < len(times) - 1:
        at = following[at]
        yield times[at]


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


def _best(table: _Table, price_s: float) -> list[int]:
    """For each time at which it is still running, the best one for the next look.

    With S(i) the probability that it is still running at time t(i), the cost from i on is

        W(i) = min over j > i of  price x S(i) + the integral of t(j) - t over what ends from i to j + W(j)
             = price x S(i) + M(i)  +  min over j of  t(j) x S(i) + (W(j) - t(j) x S(j) - M(j)),

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
        cost = price_s * running[i] + ended[i] + _at(hull[best], running[i])
    return following


def _at(line: tuple[float, float, int], x: float) -> float:
    return line[0] * x + line[1]


def _hidden(before: tuple[float, float, int], line: tuple[float, float, int], slope: float, height: float) -> bool:
    """The new line takes over from the one before the last no later than the last one does."""
    return (height - before[1]) * (before[0] - line[0]) <= (line[1] - before[1]) * (before[0] - slope)

"""Durations: what is known of how long a generation takes, as a distribution. Pure: no clock, no I/O, no Prefect.

A wait is never seen to the second: it was still running at one look and over at the next. So a sample is an interval,
and the estimate is the one for intervals: expectation-maximisation with smoothing (Silverman, Jones, Wilson and
Nychka 1990), on the logarithm of time. Exact durations and waits that were given up are its two limits.
"""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Took(NamedTuple):
    """One wait, in seconds since the submission: still running at `after_s`, over by `by_s` (infinite: given up).

    So many `newer` ones were submitted since it was over; None where that is all that stand behind it.
    """

    after_s: float
    by_s: float
    newer: int | None = None

    @classmethod
    def exactly(cls, seconds: float) -> Took:
        """A duration that somebody measured."""
        return cls(seconds, seconds)


class Prior(NamedTuple):
    """What is believed before anything was seen, and for ever held against the history: it might be out of date.

    A Student distribution with three degrees of freedom on log-seconds, whose tails no surprise falls out of.
    """

    median_s: float
    sigma: float

    def density(self, log_s: float) -> float:
        """Of log-seconds, up to a factor."""
        z = (log_s - math.log(self.median_s)) / self.sigma
        return 1 / (1 + z * z / 3) ** 2


PRIOR = Prior(median_s=150.0, sigma=0.5)
"""About 2 minutes in the documentation's own run, 149 s and about 6 minutes elsewhere."""

PRIOR_SAMPLES = 1.0
"""The prior weighs as much as so many samples."""

DOUBT_MEDIAN, DOUBT_SIGMA = 0.8, 1.2
"""The doubt about the history is the prior, this much faster and wider: it leans to the fast side because there being
wrong is dearer. What is over sooner than expected lies finished; what runs longer only costs looks."""

HALF_LIFE_SAMPLES = 15.0
"""A sample counts half as much when so many newer ones are there: providers change their hardware."""

LEARNING = ((math.inf, 15), (HALF_LIFE_SAMPLES, 4))
"""What is remembered is learned first, all of it alike; on top of that the latest, which do not tell everything: of
many that have only just begun they know the fastest. With rounds of expectation-maximisation: what no wait has seen the
end of moves slowly; with intervals of one look's width the plan no longer changes after three."""

BANDWIDTH = 0.5
"""Of the kernel, in the usual rule's units (0.9 would be Silverman's): planning forgives a rough density more readily
than two modes run into one."""

EARLIEST_SIGMAS, EARLIEST_SHARE = 3.0, 0.5
"""Nothing is over earlier than three sigmas under the prior's median, or half of the fastest seen if that is less."""

SOONEST_S = 0.01
"""Nothing at all is over earlier: logarithms need a floor."""

CELL, CELLS = 0.0125, 400
"""The grid's cells are 1.25% wide, a tenth to a fifth of the distance between looks; wider where they'd be too many."""

BEYOND = 2.0
"""So far, in log-seconds, the estimate goes on beyond the grid, lest what runs longer be taken for impossible."""

HALF, HALF_IN_SIGMAS = 0.5, 1.35
"""The middle half of a normal distribution is 1.35 sigmas wide."""


class Belief(NamedTuple):
    """How likely a generation is over by then.

    Attributes:
        times_s: 0, then the earliest plausible end, then evenly on a logarithmic scale up to the horizon.
        done: as many probabilities, rising from 0 (twice) to less than 1: the rest runs longer than the horizon.
        doubt: likewise, if the history were no guide.
    """

    times_s: tuple[float, ...]
    done: tuple[float, ...]
    doubt: tuple[float, ...]


def earliest_s(history: Sequence[Took], prior: Prior = PRIOR) -> float:
    """Nothing is believed to be over before this."""
    plausible = prior.median_s * math.exp(-EARLIEST_SIGMAS * prior.sigma)
    return max(SOONEST_S, min([plausible, *(EARLIEST_SHARE * took.by_s for took in history if took.by_s > 0)]))


def believe(history: Sequence[Took], prior: Prior, horizon_s: float) -> Belief:
    """What follows from earlier waits.

    Args:
        history: oldest first. Impossible samples (not a number, over before it began) are passed over.
        prior: see `PRIOR`.
        horizon_s: nobody waits longer than this.
    """
    samples = [took for took in history if took.after_s <= took.by_s and took.by_s > 0 and took.after_s < math.inf]
    start, end = math.log(earliest_s(samples, prior)), math.log(horizon_s)
    if end <= start:
        return Belief((0.0, horizon_s), (0.0, 0.0), (0.0, 0.0))
    inside = min(CELLS, math.ceil((end - start) / CELL))
    cell = (end - start) / inside
    middles = [start + cell * (i + 0.5) for i in range(inside + math.ceil(BEYOND / cell))]
    density = before = _scaled([prior.density(middle) for middle in middles])
    if samples:
        density = _learned(samples, before, start, cell, prior.sigma)
    doubter = Prior(prior.median_s * DOUBT_MEDIAN, prior.sigma * DOUBT_SIGMA)
    doubt = _scaled([doubter.density(middle) for middle in middles])
    return Belief(
        (0.0, *(math.exp(start + cell * i) for i in range(inside)), horizon_s),
        (0.0, 0.0, *accumulate(density[:inside])),
        (0.0, 0.0, *accumulate(doubt[:inside])),
    )


def _learned(
    samples: Sequence[Took], before: list[float], start: float, cell: float, prior_sigma: float
) -> list[float]:
    """The samples' smoothed distribution, mixed with what was believed before; probability per cell."""
    ages = [len(samples) - 1 - i if took.newer is None else took.newer for i, took in enumerate(samples)]
    cells = [_cells(took, start, cell, len(before)) for took in samples]
    known = all(first == last for first, last in cells)
    density = before
    for half_life, rounds in LEARNING:
        believed = density
        weights = [2 ** (-age / half_life) for age in ages]
        count = sum(weights) ** 2 / sum(weight * weight for weight in weights)
        trust = count / (PRIOR_SAMPLES + count)
        for _ in range(1 if known else rounds):
            spread = _spread(cells, weights, density)
            width = BANDWIDTH * _sigma(spread, cell, count, prior_sigma) * count**-0.2
            smooth = _scaled(_smoothed(spread, width / cell))
            density = [(1 - trust) * old + trust * new for old, new in zip(believed, smooth, strict=True)]
    return density


def _cells(took: Took, start: float, cell: float, cells: int) -> tuple[int, int]:
    """The first and the last cell that the sample may lie in."""

    def index(seconds: float) -> int:
        if seconds <= 0:
            return 0
        return cells - 1 if seconds == math.inf else min(max(int((math.log(seconds) - start) / cell), 0), cells - 1)

    return index(took.after_s), index(took.by_s)


def _spread(cells: Sequence[tuple[int, int]], weights: Sequence[float], density: Sequence[float]) -> list[float]:
    """Each sample's weight, spread over its interval in proportion to the density: as steps, then their running sum."""
    below = [0.0, *accumulate(density)]
    steps = [0.0] * (len(density) + 1)
    for (first, last), weight in zip(cells, weights, strict=True):
        share = weight / max(below[last + 1] - below[first], 1e-300)
        steps[first] += share
        steps[last + 1] -= share
    # What is left of a sum after as much was taken away again may be less than nothing, by a rounding.
    return _scaled([max(step, 0.0) * old for step, old in zip(accumulate(steps[:-1]), density, strict=True)])


def _sigma(spread: list[float], cell: float, count: float, prior_sigma: float) -> float:
    """Of log-seconds, by the shortest interval that holds half of them: no outlier moves it, nor does a second mode.

    A few samples are helped by the prior's.
    """
    below = [0.0, *accumulate(spread)]
    last, shortest = 0, len(spread)
    for first, missed in enumerate(below):
        while last < len(spread) and below[last] < missed + HALF:
            last += 1
        if below[last] < missed + HALF:
            break
        shortest = min(shortest, last - first)
    sigma = cell * shortest / HALF_IN_SIGMAS
    return math.sqrt((PRIOR_SAMPLES * prior_sigma**2 + count * sigma**2) / (PRIOR_SAMPLES + count))


def _smoothed(values: list[float], sigma: float) -> list[float]:
    """Three running means, which are as good as a Gaussian kernel here, and cheap however wide; sigma in cells."""
    reach = max(1, round((math.sqrt(4 * sigma * sigma + 1) - 1) / 2))
    count = len(values)
    for _ in range(3):
        below = [0.0, *accumulate(values)]
        padded = [0.0] * reach + below + [below[-1]] * reach
        values = [padded[i + 2 * reach + 1] - padded[i] for i in range(count)]
    return values


def _scaled(values: list[float]) -> list[float]:
    total = sum(values)
    return [value / total for value in values]

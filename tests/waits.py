"""Waits, simulated: how long generations may take, and what comes of looking at them when."""

from __future__ import annotations

import heapq
import math
import random
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

from tasks.durations import Took
from tasks.histories import _Known
from tasks.history import Waited
from tasks.looks import plan_looks
from tasks.wait import Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TIMEOUT_S = 1200.0
LOOP = tuple(10.0 * (look + 1) for look in range(int(TIMEOUT_S / 10)))
"""What the mission describes: every ten seconds."""

NORMAL = NormalDist()


class Truth(NamedTuple):
    """A mixture of log-normal durations: weight, median in seconds and sigma of each part."""

    parts: tuple[tuple[float, float, float], ...]

    def done(self, at_s: float) -> tuple[float, float]:
        """The probability of being over by then, and the integral of the durations over that."""
        share = ended = 0.0
        for weight, middle, sigma in self.parts if at_s > 0 else ():
            z = math.log(at_s / middle) / sigma
            share += weight * NORMAL.cdf(z)
            ended += weight * middle * math.exp(sigma**2 / 2) * NORMAL.cdf(z - sigma)
        return share, ended

    def draw(self, chance: random.Random) -> float:
        """One duration."""
        [(_, middle, sigma)] = chance.choices(self.parts, [part[0] for part in self.parts])
        return middle * math.exp(sigma * chance.gauss())


def log_normal(median_s: float, sigma: float = 0.35) -> Truth:
    return Truth(((1.0, median_s, sigma),))


TWO_MODES = Truth(((0.6, 90.0, 0.2), (0.4, 240.0, 0.2)))
SHAPES = {
    "sigma 0.35": log_normal(150),
    "sigma 0.6": log_normal(150, 0.6),
    "two modes": TWO_MODES,
    "median 60": log_normal(60),
    "median 300": log_normal(300),
}


class Outcome(NamedTuple):
    """What is to be expected of a plan: looks a job, and seconds that a finished video lies unseen."""

    looks: float
    late_s: float

    def cost(self, price_s: float) -> float:
        """In seconds."""
        return self.looks * price_s + self.late_s


def outcome(looks: Sequence[float], truth: Truth) -> Outcome:
    """Exact, by summing over the looks. What outlasts the last of them costs every look and is never late."""
    marks = [(0.0, 0.0, 0.0), *((look, *truth.done(look)) for look in looks)]
    count = late = 0.0
    for number, ((_, before, ended_before), (look, done, ended)) in enumerate(pairwise(marks), start=1):
        count += number * (done - before)
        late += look * (done - before) - (ended - ended_before)
    return Outcome(count + len(looks) * (1 - marks[-1][1]), late)


@cache
def best(truth: Truth, price_s: float) -> tuple[float, ...]:
    """The plan of who knows the truth: plain dynamic programming, second by second, no two looks 250 s apart."""
    end = int(TIMEOUT_S)
    done, ended = zip(*(truth.done(at) for at in range(end + 1)), strict=True)
    costs, following = [0.0] * (end + 1), [end] * (end + 1)
    for i in range(end - 1, -1, -1):
        options = [
            (at * (done[at] - done[i]) - ended[at] + costs[at], at) for at in range(i + 1, min(i + 251, end + 1))
        ]
        cost, following[i] = min(options)
        costs[i] = cost + ended[i] + price_s * (1 - done[i])
    looks, at = [], 0
    while at < end:
        at = following[at]
        looks.append(float(at))
    return tuple(looks)


def at_lateness(late_s: float, plan: Callable[[float], Sequence[float]], truth: Truth) -> tuple[float, Outcome]:
    """The highest price at which a plan's looks are no later than that, to a few per cent, and what comes of it."""
    low, high = 0.1, 4.0
    for _ in range(7):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if outcome(plan(middle), truth).late_s <= late_s else (low, middle)
    return low, outcome(plan(low), truth)


@cache
def history(truth: Truth, seed: int, count: int = 50) -> tuple[Took, ...]:
    chance = random.Random(seed)  # noqa: S311
    return tuple(Took.exactly(truth.draw(chance)) for _ in range(count))


def learned(waits: Sequence[Took], price_s: float) -> tuple[float, ...]:
    return plan_looks(waits, timeout_s=TIMEOUT_S, price_of_a_look_s=price_s)


def seen(looks: Sequence[float], took_s: float) -> Took:
    """A wait as it is known afterwards: between two looks."""
    return next(
        (Took(before, look) for before, look in pairwise((0.0, *looks)) if took_s <= look), Took(looks[-1], math.inf)
    )


def run(truth: Truth, waits: Sequence[Took], seed: int, *, jobs: int, price_s: float = 1.0) -> list[float]:
    """Job after job, each planned from what the looks at those before it saw: the expected costs of their plans."""
    chance, known, costs = random.Random(seed), list(waits), []  # noqa: S311
    for _ in range(jobs):
        looks = learned(known[-100:], price_s)
        costs.append(outcome(looks, truth).cost(price_s))
        known.append(seen(looks, truth.draw(chance)))
    return costs


def burst(truth: Truth, seed: int, *, known: int, jobs: int, within_s: float) -> tuple[Outcome, float]:
    """Many at once, each look planned from what is known by then; also how late the last video of all was seen."""
    chance, now_s = random.Random(seed), [0.0]  # noqa: S311
    random.seed(seed)  # of the jitter
    memory = _Known("model", "effect", 5)
    for number in range(known):
        seconds = math.floor(truth.draw(chance))
        memory.fresh.append(_waited(f"earlier {number}", seconds, seconds + 1.0, -2 * TIMEOUT_S))
    took = [truth.draw(chance) for _ in range(jobs)]
    begun = [number * within_s / jobs for number in range(jobs)]
    due: list[tuple[float, int]] = [(at_s, number) for number, at_s in enumerate(begun)]
    waits: dict[int, Wait] = {}
    late, looks, last_s, most = [], 0, 0.0, [1]
    while due:
        now_s[0], number = heapq.heappop(due)
        name = str(number)
        if number not in waits:
            wait = waits[number] = memory.running[name] = Wait(
                TIMEOUT_S,
                samples=memory.samples,
                share_left=lambda: len(memory.running) / most[0],
                clock=lambda: now_s[0],
            )
            most[0] = max(most[0], len(memory.running))
            heapq.heappush(due, (now_s[0] + wait.first_look_s, number))
            continue
        wait, age_s = waits[number], waits[number].age_s()
        looks += 1
        if age_s < took[number]:
            wait.running_s = age_s
            heapq.heappush(due, (now_s[0] + wait.pause_s(), number))
            continue
        late.append(age_s - took[number])
        last_s = now_s[0]
        del memory.running[name]
        memory.fresh.append(_waited(name, wait.running_s, age_s, begun[number]))
    ready_s = max(at_s + seconds for at_s, seconds in zip(begun, took, strict=True))
    return Outcome(looks / jobs, sum(late) / jobs), last_s - ready_s


def _waited(name: str, after_s: float, by_s: float, submitted_s: float) -> Waited:
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=submitted_s)
    return Waited(generation_id=name, after_s=after_s, by_s=by_s, at=at)

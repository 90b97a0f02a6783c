"""The wait for one generation: when to look next, when it is over, and what the looks have found so far."""

from __future__ import annotations

import math
import random
import time
from typing import TYPE_CHECKING

from tasks.looks import JITTER, next_look_s, price_of_a_look_s

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tasks.durations import Took

HORIZON_STEP_S = 30.0
"""Waits that end at about the same age share a plan: each other one costs some milliseconds."""

SHORTEST_PAUSE_S = 0.01
"""However late it is: a pause of nothing would be none to Prefect."""


class Wait:
    """It lives through the retries of the poll task. Not a dataclass: Prefect must pass it on as it is.

    Args:
        timeout_s: for the whole wait.
        age_s: of the generation when the wait begins.
        interval_s: one look every so many seconds; None has them planned.
        samples: earlier waits, as they are known when a look is planned.
        share_left: of the waits that were under way with this one, as it is when a look is planned.
        clock: seconds that only ever grow.

    Attributes:
        looks: how many were made.
        missing: how many of the latest in a row did not find the generation.
        running_s: age of the generation at the latest look that found it running; 0 where none did.
        first_look_s: seconds into the wait before which a look tells nothing that the submission's answer did not.
        not_before: no look before this, on the clock: the provider asked for it.
    """

    def __init__(
        self,
        timeout_s: float,
        *,
        age_s: float = 0.0,
        interval_s: float | None = None,
        samples: Callable[[], Sequence[Took]] = tuple,
        share_left: Callable[[], float] = lambda: 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.timeout_s = timeout_s
        self.clock = clock
        self.looks = 0
        self.missing = 0
        self.running_s = 0.0
        self.not_before = 0.0
        self._interval_s = interval_s
        self._samples = samples
        self._share_left = share_left
        self._begun_at_age_s = age_s
        self._jitter = JITTER * random.random()  # noqa: S311 - so that many waits of one plan do not look at once
        self._started = clock()
        first = self.pause_s()
        # A generation that is taken up again is looked at straight away.
        self.first_look_s = first if age_s < first / 2 else 0.0

    def waited_s(self) -> float:
        """Seconds since the wait began."""
        return self.clock() - self._started

    def age_s(self) -> float:
        """Seconds since the submission."""
        return self._begun_at_age_s + self.waited_s()

    def early_s(self) -> float:
        """Seconds for which a look would tell nothing yet, or is not wanted; never beyond the wait's end."""
        early = max(self.first_look_s - self.waited_s(), self.not_before - self.clock())
        return max(0.0, min(early, self.timeout_s - self.waited_s()))

    def over(self) -> bool:
        """Whether nobody waits any longer."""
        return self.waited_s() >= self.timeout_s

    def pause_s(self) -> float:
        """Seconds until the next look: as set, as planned, or as the provider asked; never beyond the wait's end."""
        pause = self._interval_s * (1 + self._jitter) if self._interval_s is not None else self._planned_s()
        pause = max(pause, self.not_before - self.clock())
        return max(SHORTEST_PAUSE_S, min(pause, self.timeout_s - self.waited_s()))

    def _planned_s(self) -> float:
        age_s, end_s = self.age_s(), self._begun_at_age_s + self.timeout_s
        horizon_s = HORIZON_STEP_S * math.ceil(end_s / HORIZON_STEP_S)
        look_s = next_look_s(
            self._samples(),
            elapsed_s=age_s,
            timeout_s=horizon_s,
            price_of_a_look_s=price_of_a_look_s(self._share_left()),
            jitter=self._jitter,
        )
        return look_s - age_s

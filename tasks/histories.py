"""What the target remembers of earlier waits, in `_history/`: one small file for each model, effect and duration.

A cache of what the past taught: whatever goes wrong with it costs looks, never a video. So nothing here raises.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING

from tasks.durations import Took
from tasks.errors import EffectsError
from tasks.history import History, Waited

if TYPE_CHECKING:
    from collections.abc import Callable

    from tasks.jobs import Generation, Request
    from tasks.storage import Storage
    from tasks.wait import Wait

HISTORY = "_history"

KEEP_EVERY_S = 60.0
"""A run that is killed forgets no more than it learned in this time."""

GROWTH = 0.1
"""Looks are planned anew once so much more is known: every new plan costs some milliseconds."""

log = logging.getLogger("effects")


class Histories:
    """The histories that one run reads and adds to.

    Args:
        storage: the target.
        clock: seconds that only ever grow.
    """

    def __init__(self, storage: Storage, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._storage, self._clock = storage, clock
        self._known: dict[tuple[str, str, int], _Known] = {}
        self._kept_at = clock()
        self._most = 1
        self._loading = asyncio.Lock()

    async def load(self, request: Request) -> None:
        """Read what is known of such waits, once a run: before the first of them begins."""
        key = _key(request)
        async with self._loading:
            if key not in self._known:
                known = _Known(*key)
                known.remember(await self._read(known.history))
                self._known[key] = known

    def begin(self, generation: Generation, wait: Wait) -> None:
        """A wait begins; that it has lasted for so long already will be something to learn from, too."""
        if known := self._known.get(_key(generation.request)):
            known.running[generation.id] = wait
            self._most = max(self._most, self._waiting())

    def samples(self, request: Request) -> tuple[Took, ...]:
        """Earlier waits for the same model, effect and duration, and those that are under way."""
        known = self._known.get(_key(request))
        return known.samples() if known else ()

    def share_left(self) -> float:
        """How many wait, of the most that ever did at once in this run; who asks is one of them, or about to be."""
        return max(1, self._waiting()) / self._most

    def end(self, generation: Generation) -> None:
        """A wait has ended, whatever came of it."""
        if known := self._known.get(_key(generation.request)):
            known.running.pop(generation.id, None)

    async def learn(self, generation: Generation, wait: Wait, *, done: bool) -> None:
        """How long a generation took; where it is not done, how long it was waited for in vain."""
        known = self._known.get(_key(generation.request))
        if known is None:
            return
        known.fresh.append(
            Waited(
                generation_id=generation.id,
                after_s=wait.running_s,
                by_s=max(wait.running_s, wait.age_s()) if done else None,
                at=generation.submitted_at,
            )
        )
        if self._clock() - self._kept_at >= KEEP_EVERY_S:
            await self.keep()

    async def keep(self) -> None:
        """Write down what was learned since the last time, beside what others wrote meanwhile."""
        self._kept_at = self._clock()
        for known in self._known.values():
            if known.fresh:
                known.remember(await self._read(known.history))
                await self._write(known.history)

    def _waiting(self) -> int:
        return sum(len(known.running) for known in self._known.values())

    async def _read(self, history: History) -> History:
        try:
            text = await self._storage.read(f"{HISTORY}/{history.name}.json")
        except EffectsError as error:
            log.debug("the history of waits cannot be read: %s", error.reason)
            return history
        return History.read(text or b"", model=history.model, effect=history.effect, duration=history.duration)

    async def _write(self, history: History) -> None:
        try:
            await self._storage.write(f"{HISTORY}/{history.name}.json", history.model_dump_json().encode() + b"\n")
        except EffectsError as error:
            log.debug("the history of waits was not kept: %s", error.reason)


class _Known:
    """One history, what came since it was read or written, the waits under way, and what was last made of it all."""

    def __init__(self, model: str, effect: str, duration: int) -> None:
        self.history = History(model=model, effect=effect, duration=duration)
        self.fresh: list[Waited] = []
        self.running: dict[str, Wait] = {}
        self._samples: tuple[Took, ...] = ()
        self._enough = 0.0

    def remember(self, more: History) -> None:
        fresh = self.history.model_copy(update={"waits": tuple(self.fresh)})
        self.history = self.history.merged(more).merged(fresh)
        self.fresh.clear()
        self._enough = 0.0

    def samples(self) -> tuple[Took, ...]:
        """As they were when there was a tenth less of them."""
        count = len(self.history.waits) + len(self.fresh)
        if count >= self._enough:
            self._enough = count * (1 + GROWTH) + 1
            finished = self.history.model_copy(update={"waits": (*self.history.waits, *self.fresh)}).samples
            under_way = (Took(wait.running_s, math.inf, 0) for wait in self.running.values() if wait.running_s)
            self._samples = (*finished, *under_way)
        return self._samples


def _key(request: Request) -> tuple[str, str, int]:
    return request.model, request.effect, request.duration

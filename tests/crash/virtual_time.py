"""An event loop whose clock jumps: whoever sleeps wakes at once, in the right order, and a day takes milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Time passes only when nothing can run; then it jumps to the next timer.

    Nothing that runs in it may wait for a thread or a socket: neither would ever be waited for.
    """

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def jump(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0)
        if not found and timeout is None:
            raise RuntimeError("deadlock: nothing can run, and nothing is due")
        if not found and timeout:
            self._loop.jump(timeout)
        return found

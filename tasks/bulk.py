"""Bulk: what Prefect's server is told of a run goes there some times a second, not piece by piece.

Prefect hands each event and each log line from the thread that has it to another one, whose event loop sends it, by
way of a third that waits for it. In a run that does much at once, each such change of threads takes the interpreter's
lock away from the work: a third of the time in which jobs are submitted went into that.
"""

from __future__ import annotations

import asyncio
import queue
from typing import Any

from prefect._internal.concurrency import services

GATHER_S = 0.1
"""So long the first piece waits for more, once there was nothing to tell."""


class _Next:
    """The next piece of a queue, for whom Prefect's way of waiting for one takes too long a way."""

    def __init__(self, pieces: queue.Queue[Any], wait: Any) -> None:  # noqa: ANN401
        self._pieces, self._wait = pieces, wait

    async def aresult(self) -> Any:  # noqa: ANN401
        """One that lies there already, else the next that comes, after a pause in which others may gather.

        Raises:
            queue.Empty: none came in the time that Prefect gave.
        """
        try:
            return self._pieces.get_nowait()
        except queue.Empty:
            pass
        piece = await self._wait().aresult()
        if piece is not None:  # None is the sign that this was all
            await asyncio.sleep(GATHER_S)
        return piece


class _Gathering(services.WorkerThread):  # type: ignore[name-defined, misc]
    """The thread in which Prefect waits for the next piece: asked only when none is there."""

    def submit(self, call: Any) -> Any:  # noqa: ANN401
        pieces = getattr(call.fn, "__self__", None)
        if not isinstance(pieces, queue.Queue):
            return super().submit(call)
        return _Next(pieces, lambda: super(_Gathering, self).submit(call))


def tell_in_bulk() -> None:
    """From here on in this process, for what sends events or log lines and has not begun to."""
    services.WorkerThread = _Gathering  # type: ignore[attr-defined]

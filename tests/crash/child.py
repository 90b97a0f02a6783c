"""A real `effects generate` in a process of its own, which stops where it is told and waits there to be killed.

    python -m tests.crash.child STAGE EFFECT IMAGE…

prints `AT <stage>` once it is there, and otherwise the command's own JSON document.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from typing import TYPE_CHECKING, Any

from deployments.cli import main
from tasks.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable

HOLDS = {
    "before claim": ("claim", "before"),
    "after claim, before POST": ("claim", "after"),
    "after answer, before generation.json": ("record_generation", "before"),
    "after video.mp4, before metadata.json": ("record_video", "before"),
    "after metadata.json, before _open is removed": ("close", "before"),
}
"""Stage to a method of the ledger, and the side of it on which to stop."""

LARGEST_FILE_BYTES = "CHILD_LARGEST_FILE_BYTES"
"""Environment variable: no file grows beyond that, as on a disk that is full or under a quota."""

SHORT_PAUSES = "CHILD_SHORT_PAUSES"
"""Environment variable: the steps' pauses between their tries are short, where a test would wait for them."""


def hold(stage: str) -> None:
    """Stop for ever at that stage."""
    name, side = HOLDS[stage]
    method: Callable[..., Any] = getattr(Ledger, name)

    async def held(*arguments: Any) -> Any:  # noqa: ANN401 - the method's own
        if side == "after":
            await method(*arguments)
        sys.stdout.write(f"AT {stage}\n")
        sys.stdout.flush()
        await asyncio.sleep(3600)

    setattr(Ledger, name, held)


def shorten() -> None:
    """The order of things is tested, not the length of the pauses between them."""
    import tasks.ledger  # noqa: PLC0415 - only where it is asked for
    from tasks.persist import persist_video  # noqa: PLC0415

    tasks.ledger.KEEP_PAUSES_S = (0.1,) * 6
    persist_video.retry_delay_seconds = [0.2, 0.2, 0.2]


if __name__ == "__main__":
    stage, *arguments = sys.argv[1:]
    if stage in HOLDS:
        hold(stage)
    if os.environ.get(SHORT_PAUSES):
        shorten()
    if limit := os.environ.get(LARGEST_FILE_BYTES):
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
    sys.exit(main(["generate", *arguments, "--json"]))

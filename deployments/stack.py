"""The local stack of `effects up`, as other commands find it: a file that says where its server is, and a lock on it.

The system gives a lock back however its process ends: a stale file is never taken for a running stack, and neither is
a stranger on the same port. POSIX only, as the stack is.
"""

from __future__ import annotations

import contextlib
import json
import time
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FILE = "effects-up.json"
"""In Prefect's home: one database has one stack."""

LOCK_PATIENCE_S = 1.0
"""Whoever looks holds the lock for a moment, too."""


def running_stack(home: Path) -> str | None:
    """The API's URL of the stack that uses this Prefect home, or None where none runs; it may be starting still."""
    try:
        file = (home / FILE).open(encoding="utf-8")
    except OSError:
        return None
    with file:
        if _locked(file, exclusive=False):
            return None
        try:
            return str(json.load(file)["api_url"])
        except (ValueError, KeyError, TypeError):
            return None  # it has no port yet


class Place:
    """The place of the one stack of a Prefect home, taken."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def tell(self, api_url: str) -> None:
        """From here on other commands find the stack."""
        self._file.seek(0)
        self._file.truncate()
        json.dump({"api_url": api_url}, self._file)
        self._file.flush()


@contextmanager
def take_place(home: Path) -> Iterator[Place | None]:
    """Be the one stack of this Prefect home until the context ends; None where there is one already.

    Raises:
        OSError: the home cannot be written.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / FILE).open("a+", encoding="utf-8") as file:
        give_up = time.monotonic() + LOCK_PATIENCE_S
        while not (taken := _locked(file, exclusive=True)) and time.monotonic() < give_up:
            time.sleep(0.05)
        if not taken:
            yield None
            return
        file.truncate(0)
        try:
            yield Place(file)
        finally:
            with contextlib.suppress(OSError):
                file.truncate(0)


def _locked(file: IO[Any], *, exclusive: bool) -> bool:
    """Whether the lock could be had; it is held until the file is closed."""
    import fcntl  # noqa: PLC0415 - commands that only look for a stack run where there is no such module

    try:
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

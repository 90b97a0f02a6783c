"""A watched folder of this machine: the operating system tells of every file that is put into it."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from watchfiles import Change, awatch

from deployments.uploads.arrival import Arrival
from deployments.uploads.events import NotAccepted
from tasks.errors import BadInput
from tasks.storage import explain

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator

    from watchfiles.main import FileChange

    from deployments.uploads.listener import Listener

LOOK_MS = 500
"""How often the folder itself is looked at: one that was moved away is watched where it went, not where it was."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""Before it is watched anew after an error; the pause doubles while the errors go on."""

log = logging.getLogger("effects")


class Folder:
    """The inbox itself, where it is a local folder.

    Attributes:
        watching: set as soon as everything that is put there is noticed.
    """

    def __init__(self) -> None:
        self.watching = asyncio.Event()

    async def listen(self, listener: Listener) -> None:
        """Tell of files that are put there, until cancelled. The folder is made where there is none.

        Raises:
            BadInput: the inbox is not local, or cannot be made or watched.
        """
        place = listener.place
        if not place.local:
            raise BadInput(f"the inbox {place.url} is no folder of this machine: it cannot be watched")
        root = Path(place.bucket)
        async with asyncio.TaskGroup() as telling:
            async for changed in self._changes(root):
                telling.create_task(_tell(listener, list(_arrivals(root, changed))))

    async def _changes(self, root: Path) -> AsyncIterator[Iterable[Path]]:
        """Files and folders that were put there, some at a time."""
        anew, pause = False, FIRST_PAUSE_S
        while True:
            try:
                real, watched = _made(root)
                async with aclosing(_watch(real)) as watch:
                    async for changes in watch:
                        if not self.watching.is_set():
                            log.info("uploads: watching %s", root)
                            self.watching.set()
                        found = [root / Path(path).relative_to(real) for _, path in changes]
                        if anew:  # what is there already was put there while nobody watched
                            found, anew = [root], False
                        if found:
                            yield found
                        if _identity(root) != watched:
                            break
                        pause = FIRST_PAUSE_S
                log.warning("uploads: %s was moved or removed: it is watched anew", root)
            except (OSError, RuntimeError) as error:  # watchfiles stumbles over a name that is no UTF-8
                if isinstance(error, OSError) and not self.watching.is_set():
                    raise BadInput(f"the inbox {root} cannot be watched: {explain(error)}") from error
                log.warning("uploads: %s is watched anew in %.0f s: %s", root, pause, explain(error))
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)
            anew = True


async def _watch(root: Path) -> AsyncGenerator[set[FileChange], None]:
    watch = awatch(
        root,
        watch_filter=_is_put_there,
        rust_timeout=LOOK_MS,
        yield_on_timeout=True,
        ignore_permission_denied=True,
    )
    try:
        async with aclosing(watch):
            async for changes in watch:
                yield changes
    except ExceptionGroup as errors:  # of the one thread that waits
        raise errors.exceptions[0] from None


def _is_put_there(change: Change, path: str) -> bool:
    """Files that are new or written to; folders that are new, with what is in them."""
    return change is Change.added or (change is Change.modified and not Path(path).is_dir())


def _made(root: Path) -> tuple[Path, tuple[int, int] | None]:
    """Its real path, by which some systems tell of its files, and which folder it is now."""
    root.mkdir(parents=True, exist_ok=True)
    return root.resolve(), _identity(root)


async def _tell(listener: Listener, arrivals: Iterable[Arrival]) -> None:
    with suppress(NotAccepted):  # the listener keeps them, and has said why
        await listener.tell(arrivals)


def _arrivals(root: Path, paths: Iterable[Path]) -> Iterator[Arrival]:
    """The files among them, and in the folders among them: a folder is watched only after it came with its files."""
    for path in paths:
        for file in _files(path):
            try:
                stat = file.stat()
                key = file.relative_to(root).as_posix()
                key.encode()
            except OSError:
                continue  # gone again
            except UnicodeEncodeError:
                log.warning("uploads: %r: its name is no UTF-8", file)
                continue
            version = f"{stat.st_mtime_ns}-{stat.st_ctime_ns}-{stat.st_size}"
            yield Arrival("folder", str(root), key, version)


def _files(path: Path) -> Iterator[Path]:
    if path.is_dir():
        for folder, _, names in os.walk(path):
            yield from (Path(folder, name) for name in names)
    else:
        yield path


def _identity(root: Path) -> tuple[int, int] | None:
    try:
        stat = root.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino

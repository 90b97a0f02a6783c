"""A listing: every file below a folder with its details, in one pass, wherever the folder lies."""

from __future__ import annotations

import os
import posixpath
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fsspec.spec import AbstractFileSystem

from tasks.storage import LASTING, explain

if TYPE_CHECKING:
    from collections.abc import Iterator

LEFT_BEHIND = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})
UNFINISHED = (".part", ".partial", ".filepart", ".crdownload", ".download", ".tmp")

CONTENTS = ("ETag", "etag", "md5Hash")
WRITTEN = ("mtime", "LastModified", "last_modified", "updated", "modified", "modify", "last_write_time", "created")
"""What filesystems call the hash of a file's contents, and the time when it was last written."""


class Found(NamedTuple):
    """One file, as the listing shows it.

    Attributes:
        path: below the root of the listing, with `/`.
        size: bytes.
        version: another one whenever the file is another one: size, and ETag or time of writing.
        modified: when it was last written to, seconds since 1970, where it can be seen before it is whole; else None.
        fault: why it is not a file that can be read; empty where it is.
    """

    path: str
    size: int
    version: str
    modified: float | None = None
    fault: str = ""


def is_passed_over(name: str) -> bool:
    """Whether a file or folder of this name is nobody's: hidden, left behind by a system, or not finished yet."""
    lowered = name.lower()
    return lowered[0] == "." or lowered in LEFT_BEHIND or lowered.endswith(UNFINISHED)


def on_disk(root: str, folder: str, unlisted: dict[str, str]) -> Iterator[Found]:
    """Every file below a folder of a local disk, or the one file that it is.

    fsspec does the same in twice the time, passes over what it cannot list without a word, and takes the times of
    links for those of files.

    Args:
        root: an absolute path.
        folder: below it; empty for all of it.
        unlisted: gets the folders that cannot be listed, and why.
    """
    todo = [folder]
    while todo:
        folder = todo.pop()
        inside = f"{folder}/" if folder else ""
        try:
            with os.scandir(f"{root}/{folder}") as entries:
                for entry in entries:
                    if is_passed_over(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(inside + entry.name)
                    elif file := _on_disk(inside + entry.name, entry):
                        yield file
        except OSError as error:
            yield from _no_folder(root, folder, error, unlisted)


def elsewhere(
    filesystem: AbstractFileSystem, root: str, folder: str, unlisted: dict[str, str], *, atomic: bool
) -> Iterator[Found]:
    """The same of any other filesystem.

    Args:
        filesystem: that does not cache its listings.
        root: a path of it.
        folder: below the root; empty for all of it.
        unlisted: gets the folders that cannot be listed, and why.
        atomic: whether every file that is seen is whole.

    Raises:
        Exception: of the filesystem's own kind, where it cannot be listed now.
    """
    at = f"{root}/{folder}".rstrip("/")
    # fsspec's own walk through the folders, which most that are no object stores have, passes over what it cannot
    # list without a word.
    walks = type(filesystem).find is AbstractFileSystem.find
    try:
        listed = _walk(filesystem, at, len(root) + 1, unlisted) if walks else filesystem.find(at, detail=True).items()
        for name, info in listed:
            path = str(name)[len(root) + 1 :]
            # Object stores have placeholders for folders, and folders without a name.
            if path and path[-1] != "/" and not any(part and is_passed_over(part) for part in path.split("/")):
                yield _told(path, info, atomic=atomic)
    except FileNotFoundError as error:
        if not folder:
            unlisted[folder] = explain(error)
    except LASTING as error:
        unlisted[folder] = explain(error)


def _walk(
    filesystem: AbstractFileSystem, at: str, below: int, unlisted: dict[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and details of all files of a filesystem, folder by folder."""
    top = filesystem.info(at)
    if top["type"] != "directory":
        yield at, top
        return
    todo = [at]
    while todo:
        folder = todo.pop()
        try:
            for info in filesystem.ls(folder, detail=True):
                name = str(info["name"]).rstrip("/")
                if info["type"] == "directory":
                    todo.append(name)
                else:
                    yield name, info
        except FileNotFoundError:
            continue  # gone meanwhile
        except LASTING as error:
            unlisted[folder[below:]] = explain(error)


def _on_disk(path: str, at: os.DirEntry[str] | Path) -> Found | None:
    try:
        status = at.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not at.is_symlink():
            return None  # gone meanwhile
        return Found(path, 0, "", fault=explain(error))
    if not stat.S_ISREG(status.st_mode):
        return Found(path, 0, "", fault="it is a link to a folder, or no file at all")
    return Found(path, status.st_size, f"{status.st_size}-{status.st_mtime_ns}", status.st_mtime)


def _no_folder(root: str, folder: str, error: OSError, unlisted: dict[str, str]) -> Iterator[Found]:
    """What is to be said of something below the root that cannot be listed, and of the root itself."""
    if folder and isinstance(error, FileNotFoundError):
        return  # gone by now, or never there
    if folder and isinstance(error, NotADirectoryError):
        file = None if is_passed_over(posixpath.basename(folder)) else _on_disk(folder, Path(root, folder))
        yield from [file] if file else []
        return
    unlisted[folder] = explain(error)


def _told(path: str, info: dict[str, Any], *, atomic: bool) -> Found:
    """What fsspec tells of a file: each filesystem has its own words."""
    size = int(info.get("size") or 0)
    contents = next((info[word] for word in CONTENTS if info.get(word)), None)
    written = next((info[word] for word in WRITTEN if info.get(word)), None)
    version = f"{size}-{written}" if contents is None else f"{size}-{str(contents).strip(chr(34))}"
    if isinstance(written, datetime):
        written = (written if written.tzinfo else written.replace(tzinfo=UTC)).timestamp()
    return Found(path, size, version, written if isinstance(written, int | float) and not atomic else None)

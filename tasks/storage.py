"""A folder at any fsspec URL: read, write whole files, create exclusively, list, sign.

Every call runs in a thread, and every failure of the filesystem comes out as one `StorageError` line. A file that
exists is whole: object stores replace atomically, elsewhere a file is written beside its place and moved into it.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import posixpath
import re
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from tasks.errors import StorageError
from tasks.jobs import public_url

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import fsspec

T = TypeVar("T")

ATOMIC_PUT = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oss", "cos", "r2", "b2"})
"""Stores without folders, in which a reader sees the old object or the new one, never half of either."""

LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
"""Errors of the location or of the rights to it: asking again cannot mend them."""

_CREDENTIALS = re.compile(r"[^\s/\"']+:[^\s/\"']+@")

SIGN_FOR_S = 6 * 3600
"""How long a signed URL lives: the provider may fetch late in its queue; at least an hour is needed."""


def explain(error: BaseException) -> str:
    """A filesystem's error as one plain line."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file or bucket"
    if isinstance(error, PermissionError):
        return "access is not allowed"
    if isinstance(error, IsADirectoryError):
        return "it is a folder"
    if isinstance(error, NotADirectoryError | FileExistsError):
        return "a part of the path is a file, not a folder"
    if isinstance(error, ImportError):
        return f"this kind of location needs a package that is not installed: {error}".splitlines()[0]
    if isinstance(error, TimeoutError):
        return "it does not answer in time"
    text = " ".join(_CREDENTIALS.sub("…@", str(error)).split()) or type(error).__name__
    if type(error).__name__ == "NoCredentialsError":
        return "no credentials were found for it"
    return text if len(text) <= 200 else text[:199] + "…"  # noqa: PLR2004 - a line, not a page


class Storage:
    """Files under one URL; paths are relative to it and use `/`.

    Args:
        url: any fsspec URL or local path; it need not exist yet.

    Raises:
        StorageError: where the URL names no known filesystem.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/") if not url.endswith("://") else url
        try:
            # Listings are never cached: other processes write here too.
            self._fs, root = url_to_fs(url, use_listings_cache=False)
        except Exception as error:
            raise StorageError(f"{public_url(url)}: {explain(error)}", lasting=True) from error
        self._root = str(root).rstrip("/")
        protocol = self._fs.protocol if isinstance(self._fs.protocol, str) else self._fs.protocol[0]
        self.atomic_put = protocol in ATOMIC_PUT
        self.local = isinstance(self._fs, LocalFileSystem)

    def url_of(self, path: str) -> str:
        """The full fsspec URL of a file here; a local one as an absolute path."""
        return self._at(path) if self.local else str(self._fs.unstrip_protocol(self._at(path)))

    async def read(self, path: str) -> bytes | None:
        """The whole file, or None where there is none."""

        def read() -> bytes | None:
            try:
                return bytes(self._fs.cat_file(self._at(path)))
            except (FileNotFoundError, NotADirectoryError):
                return None

        return await self._call("read", path, read)

    async def write(self, path: str, data: bytes) -> None:
        """Write or replace a file, atomically."""
        await self._call("write", path, lambda: self._place(path, lambda at: self._fs.pipe_file(at, data)))

    async def upload(self, path: str, local: Path) -> None:
        """Write or replace a file with the contents of a local one, atomically and without holding it in memory."""
        await self._call("write", path, lambda: self._place(path, lambda at: self._fs.put_file(str(local), at)))

    async def create(self, path: str, data: bytes) -> bool:
        """Write a file that must not exist yet; exactly one of any number of racing callers gets True.

        On S3 this is a conditional PUT. On a local disk the file and its folder are synced before this returns, so
        that the answer outlives a power cut.
        """

        def create() -> bool:
            at = self._at(path)
            self._make_folder(at)
            try:
                file = self._fs.open(at, "xb")
            except FileExistsError:
                return False
            try:
                with file:
                    file.write(data)
                    if self.local:
                        file.flush()
                        os.fsync(file.fileno())
            except FileExistsError:  # an object store learns of it at the end
                return False
            except BaseException:
                if self.local:  # the file is ours, and says nothing: to leave it would claim for nobody
                    with contextlib.suppress(OSError):
                        self._fs.rm_file(at)
                raise
            if self.local:
                _sync(posixpath.dirname(at))
            return True

        return await self._call("create", path, create)

    async def size(self, path: str) -> int | None:
        """Bytes, as the filesystem tells now; None where there is no such file."""

        def size() -> int | None:
            try:
                self._fs.invalidate_cache(posixpath.dirname(self._at(path)))
                return int(self._fs.info(self._at(path))["size"])
            except FileNotFoundError:
                return None

        return await self._call("look at", path, size)

    async def modified(self, path: str) -> datetime | None:
        """When a file was last written, by the store's own clock; None where it is absent or the store cannot tell."""

        def modified() -> datetime | None:
            try:
                at: datetime = self._fs.modified(self._at(path))
            except (FileNotFoundError, NotImplementedError, KeyError):
                return None
            return at if at.tzinfo else at.replace(tzinfo=UTC)

        return await self._call("look at", path, modified)

    async def list(self, folder: str) -> tuple[str, ...]:
        """Paths of all files in a folder and below it, sorted; empty where there is no such folder."""

        def find() -> tuple[str, ...]:
            at = self._at(folder)
            try:
                found = self._fs.find(at)
            except (FileNotFoundError, NotADirectoryError):
                return ()
            return tuple(sorted(str(name)[len(self._root) :].lstrip("/") for name in found if str(name) != at))

        return await self._call("list", folder, find)

    async def times(self, folder: str) -> dict[str, datetime | None]:
        """The same listing, in its order, with when each file was last written; None where the store does not tell."""

        def find() -> dict[str, datetime | None]:
            at = self._at(folder)
            try:
                found = self._fs.find(at, detail=True)
            except (FileNotFoundError, NotADirectoryError):
                return {}
            names = {str(name)[len(self._root) :].lstrip("/"): info for name, info in found.items() if str(name) != at}
            return {name: _written(names[name]) for name in sorted(names)}

        return await self._call("list", folder, find)

    async def delete(self, path: str) -> None:
        """Remove a file; one that is not there is fine."""

        def delete() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._fs.rm_file(self._at(path))

        await self._call("delete", path, delete)

    async def sign(self, path: str, expires_s: int = SIGN_FOR_S) -> str | None:
        """A URL that anyone can fetch for `expires_s` seconds, or None where this filesystem cannot sign."""

        def sign() -> str | None:
            try:
                return str(self._fs.sign(self._at(path), expiration=expires_s))
            except NotImplementedError:
                return None

        return await self._call("sign", path, sign)

    def _at(self, path: str) -> str:
        return f"{self._root}/{path}".rstrip("/") if path else self._root

    def _make_folder(self, at: str) -> None:
        if self.atomic_put:
            return
        folder = posixpath.dirname(at)
        missing = []
        while self.local and folder and not os.path.isdir(folder):  # noqa: PTH112 - fsspec's paths are text
            missing.append(folder)
            folder = posixpath.dirname(folder)
        self._fs.makedirs(posixpath.dirname(at), exist_ok=True)
        for made in missing:
            _sync(posixpath.dirname(made) or ".")

    def _place(self, path: str, put: Callable[[str], object]) -> None:
        at = self._at(path)
        if self.atomic_put:
            put(at)
            return
        self._make_folder(at)
        beside = f"{at}.{uuid.uuid4().hex[:8]}.part"
        try:
            put(beside)
            if self.local:
                _sync(beside)
            self._fs.mv(beside, at)
            if self.local:
                _sync(posixpath.dirname(at))
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.rm_file(beside)
            raise

    async def _call(self, verb: str, path: str, do: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(do)
        except Exception as error:
            lasting = isinstance(error, LASTING) or getattr(error, "errno", None) == errno.EROFS
            line = f"cannot {verb} {public_url(self.url_of(path))}: {explain(error)}"
            raise StorageError(line, lasting=lasting) from error


def filesystem_of(url: str, **options: Any) -> tuple[fsspec.AbstractFileSystem, str]:  # noqa: ANN401 - fsspec's own
    """The filesystem that a source URL names and the path in it.

    Raises:
        ValueError: where no such filesystem is known.
    """
    filesystem, path = url_to_fs(url, **options)
    return filesystem, str(path)


def _written(info: dict[str, Any]) -> datetime | None:
    """Each filesystem has its own word for it."""
    at = next((info[word] for word in ("mtime", "LastModified", "last_modified", "updated") if info.get(word)), None)
    if isinstance(at, int | float):
        return datetime.fromtimestamp(at, UTC)
    if isinstance(at, str):
        try:
            at = datetime.fromisoformat(at)
        except ValueError:
            return None
    if not isinstance(at, datetime):
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _sync(path: str) -> None:
    """Have a local file or folder outlive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Receipts: what became of each upload, so that no sweep looks at it twice. They lie in the target.

    _inbox/<key>.json                          one upload
    _inbox/settled/<count>-<digest>.jsonl      many, a line each: listing thousands of files would cost every sweep

They never guard money: whoever removes `_inbox` has everything looked at again, and nothing is paid for again. So a
lost receipt costs a look, and any number of sweeps may write and bundle them at once: a receipt is removed only by
who has written it into a bundle before, and twice the same receipt says the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import posixpath
import re
from datetime import datetime  # noqa: TC003 - pydantic reads it
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from tasks.errors import JobState, StorageError
from tasks.jobs import now
from tasks.uploads import KEY_BYTES, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.jobs import Outcome
    from tasks.storage import Storage
    from tasks.uploads import Upload

INBOX = "_inbox"
SETTLED = f"{INBOX}/settled"
"""Behind every key in a listing's order: what moves there while a listing is under way is still to come."""

BUNDLE_AT = 250
"""Single receipts, from which on they are bundled: a quarter of one page of an object store's listing."""

LOOKS = 3
"""At bundles, while others bundle them anew."""

_SINGLE = re.compile(rf"{INBOX}/([0-9a-f]{{{2 * KEY_BYTES}}})\.json")
_BUNDLE = re.compile(rf"{SETTLED}/[0-9]+-[0-9a-f]+\.jsonl")
_KEY_STARTS = len('{"key":"')
_KEY = slice(_KEY_STARTS, _KEY_STARTS + 2 * KEY_BYTES)

log = logging.getLogger("effects")


class Receipt(BaseModel):
    """What became of one upload.

    Attributes:
        key: of the upload; first, so that it can be had of a line without reading the rest.
        name: of the upload: its path inside the inbox.
        files: path and version of each.
    """

    model_config = ConfigDict(frozen=True)

    key: str
    name: str
    state: JobState
    job_id: str | None
    reason: str | None
    at: datetime
    files: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, upload: Upload, outcome: Outcome) -> Receipt:
        """The receipt of an upload that ended."""
        files = tuple((printable(file.path), file.version) for file in upload.files)
        return cls(
            key=upload.key,
            name=upload.name,
            state=outcome.state,
            job_id=outcome.job_id,
            reason=outcome.reason,
            at=now(),
            files=files,
        )

    @property
    def line(self) -> bytes:
        """As it stands in a bundle."""
        return self.model_dump_json().encode()


class Receipts:
    """The receipts under one target."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._singles = 0
        self._lines: dict[str, bytes] = {}
        self._bundling = asyncio.Lock()

    async def settled(self) -> set[str]:
        """The keys of every upload that needs no further look.

        Raises:
            StorageError: the target cannot be read.
        """
        keys = set[str]()
        for _ in range(LOOKS):
            singles, bundles = await self._listed()
            self._singles = len(singles)
            read = await asyncio.gather(*(self._storage.read(bundle) for bundle in bundles))
            keys.update(singles)
            for content in read:
                keys.update(_key(line) for line in (content or b"").splitlines())
            if None not in read:
                break  # else it was bundled anew, behind our look
        return keys

    async def keep(self, receipt: Receipt) -> None:
        """Write what became of an upload; where that fails, the next sweep looks at it again."""
        try:
            await self._storage.write(_path(receipt.key), receipt.model_dump_json(indent=2).encode() + b"\n")
        except StorageError as error:
            log.warning("what became of %s could not be noted: %s", receipt.name, error.reason)
            return
        self._lines[receipt.key] = receipt.line
        self._singles += 1
        if not self._bundling.locked():
            await self.bundle()

    async def bundle(self) -> None:
        """Put single receipts together once they are many; where that fails, they stay as they are."""
        async with self._bundling:
            if self._singles < BUNDLE_AT:
                return
            self._singles = 0
            try:
                await self._bundle()
            except StorageError as error:
                log.warning("receipts could not be bundled: %s", error.reason)

    async def _bundle(self) -> None:
        """One bundle out of the single receipts and of every bundle that is no larger: so there are never many."""
        singles, bundles = await self._listed()
        read = dict(zip(singles, await asyncio.gather(*map(self._line, singles)), strict=True))
        lines = {key: line for key, line in read.items() if line}
        old = [_path(key) for key in lines]
        for bundle in bundles:
            if _count(bundle) > len(lines):
                break
            if content := await self._storage.read(bundle):
                lines.update((_key(line), line) for line in content.splitlines())
                old.append(bundle)
        if not lines:
            return
        new, content = bundle_of(lines)
        await self._storage.write(new, content)
        await asyncio.gather(*(self._storage.delete(path) for path in old if path != new))
        for key in lines:
            self._lines.pop(key, None)

    async def _line(self, key: str) -> bytes | None:
        """A single receipt as a line; None where it is gone, or cannot be read."""
        if key in self._lines:
            return self._lines[key]
        try:
            return Receipt.model_validate_json(await self._storage.read(_path(key)) or b"").line
        except ValidationError:
            return None

    async def _listed(self) -> tuple[list[str], list[str]]:
        """Keys of single receipts; paths of bundles, the smallest first."""
        paths = await self._storage.list(INBOX)
        singles = [found[1] for path in paths if (found := _SINGLE.fullmatch(path))]
        return singles, [path for path in paths if _BUNDLE.fullmatch(path)]


def bundle_of(lines: Mapping[str, bytes]) -> tuple[str, bytes]:
    """Path and content of the bundle of these lines, by key. The same lines are the same bundle."""
    content = b"".join(lines[key] + b"\n" for key in sorted(lines))
    return f"{SETTLED}/{len(lines):08}-{hashlib.sha256(content).hexdigest()[:16]}.jsonl", content


def _path(key: str) -> str:
    return f"{INBOX}/{key}.json"


def _key(line: bytes) -> str:
    return line[_KEY].decode(errors="replace")


def _count(bundle: str) -> int:
    """How many receipts a bundle holds, from its name."""
    return int(posixpath.basename(bundle).partition("-")[0])

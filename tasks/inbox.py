"""The inbox: one listing of it, and the uploads in it that are not done yet.

A look costs one listing with details, whatever was uploaded; of the files themselves only a `job.json` is read here.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import os
import reprlib
import time
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Annotated

from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.errors import BadInput, StorageError
from tasks.jobs import Job, public_url
from tasks.listing import elsewhere, on_disk
from tasks.manifest import Row
from tasks.storage import Storage, explain, filesystem_of
from tasks.uploads import NOTE, Convention, Upload, printable

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from pydantic_core import ErrorDetails

    from tasks.effects import Catalogue
    from tasks.listing import Found
    from tasks.settings import Settings

NOTHING_THERE = "nothing has been uploaded there so far"


class _Wish(BaseModel):
    """What a `job.json` can say."""

    model_config = ConfigDict(extra="forbid", strict=True)

    duration: Annotated[int, Field(gt=0)] = 5
    take: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found.

    Attributes:
        ready: complete, or to be rejected.
        waiting: not complete yet.
    """

    ready: tuple[Upload, ...] = ()
    waiting: tuple[Upload, ...] = ()

    @property
    def growing(self) -> bool:
        """Whether another look in a moment may find more."""
        return any(upload.growing for upload in self.waiting)


class Inbox:
    """The watched location.

    Args:
        settings: name it, and what must not lie in it.
        catalogue: what can be asked for.
        folders: look at these alone, as paths inside the inbox or as URLs; all of it where there are none.

    Raises:
        BadInput: no inbox is named, it is of no known kind, a folder is not in it, or the target or the staging area
            lies inside of it or around it.
        StorageError: it cannot be reached now.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue, folders: Sequence[str] = ()) -> None:
        if not settings.inbox:
            raise BadInput("no inbox is named: give its URL, or set EFFECTS_INBOX")
        self.shown = public_url(settings.inbox)
        try:
            # Listings are never cached: others write here all the time.
            self._fs, root = filesystem_of(settings.inbox, use_listings_cache=False)
            self._storage = Storage(settings.inbox)
        except (ValueError, ImportError) as error:
            raise BadInput(f"the inbox does not fit: {self.shown}: {explain(error)}") from None
        except Exception as error:  # some filesystems connect at once
            raise StorageError(f"the inbox {self.shown} cannot be reached: {explain(error)}") from error
        self._root, self._local = root.rstrip("/"), isinstance(self._fs, LocalFileSystem)
        self._url = self._root if self._local else self._storage.url
        self._convention = Convention(public_url(self._url), catalogue, settings.model)
        asked = dict.fromkeys(self._inside(folder) for folder in folders)
        # Within an effect's folder that is asked for as a whole, nothing is to be looked at twice.
        self._folders = [folder for folder in asked if "/" not in folder or folder.partition("/")[0] not in asked]
        self._check_apart("target", settings.target)
        if settings.staging:
            self._check_apart("staging area", settings.staging)

    async def look(self, settled: Container[str]) -> Look:
        """The uploads whose key is not settled.

        Raises:
            BadInput: the inbox is not there, or must not be looked at.
            StorageError: it cannot be listed now.
        """
        return await asyncio.to_thread(self._look, settled)

    def row(self, number: int, upload: Upload) -> Row:
        """An upload as a row, like those of a manifest; what its `job.json` says is not known yet."""
        if upload.problems:
            return Row(number, upload.name, None, upload.problems)
        images = tuple(self._url_of(path) for path in upload.images)
        return Row(number, upload.name, Job(effect=upload.effect, images=images))

    async def as_told(self, job: Job, upload: Upload) -> Job:
        """The job as the upload's `job.json` wants it.

        Raises:
            BadInput: with everything that is wrong with it.
            StorageError: it cannot be read now.
        """
        if upload.note is None:
            return job
        content = await self._storage.read(upload.note)
        if content is None:
            raise StorageError(f"{self._storage.url_of(upload.note)} is gone")
        wish = _wish(content)
        return job.model_copy(update={"duration": wish.duration, "take": wish.take})

    def _look(self, settled: Container[str]) -> Look:
        unlisted, empty = dict[str, str](), set(self._folders)
        found = chain.from_iterable(self._listed(folder, unlisted, empty) for folder in self._folders or ("",))
        uploads = list(self._convention.uploads(found, settled, time.time()))
        if "" in unlisted:
            raise BadInput(f"the inbox {self.shown}: {unlisted['']}")
        for folder, reason in unlisted.items():
            problem = f"it cannot be listed: {reason}"
            uploads.append(Upload(printable(folder), problems=(problem,), key=f"unlisted {folder}", lasting=False))
        missing = sorted(empty - unlisted.keys())
        uploads += [Upload(printable(folder), waits=NOTHING_THERE, key=f"nothing in {folder}") for folder in missing]
        uploads = [upload for upload in uploads if upload.key not in settled]
        uploads.sort(key=lambda upload: upload.name)
        ready = tuple(upload for upload in uploads if not upload.waits)
        return Look(ready, tuple(upload for upload in uploads if upload.waits))

    def _listed(self, folder: str, unlisted: dict[str, str], empty: set[str]) -> Iterator[Found]:
        try:
            if self._local:
                found = on_disk(self._root, folder, unlisted)
            else:
                found = elsewhere(self._fs, self._root, folder, unlisted, atomic=self._storage.atomic_put)
            for file in found:
                empty.discard(folder)
                yield file
        except Exception as error:
            raise StorageError(f"cannot list {self.shown}: {explain(error)}") from error

    def _url_of(self, path: str) -> str:
        return f"{self._url}/{path}"

    def _inside(self, folder: str) -> str:
        """The path of an upload, or of an effect's folder, that a path or URL names.

        Raises:
            BadInput: it leads elsewhere.
        """
        path = folder
        if "://" in folder or folder.startswith("/"):
            try:
                filesystem, path = filesystem_of(folder, use_listings_cache=False)
            except Exception as error:
                raise BadInput(f"{public_url(folder)} is not in the inbox {self.shown}") from error
            if filesystem != self._fs or not f"{path}/".startswith(f"{self._root}/"):
                raise BadInput(f"{public_url(folder)} is not in the inbox {self.shown}")
            path = path[len(self._root) :]
        parts = [part for part in path.split("/") if part]
        if not parts or ".." in parts or "." in parts:
            raise BadInput(f"{public_url(folder)} is no folder of the inbox {self.shown}")
        return "/".join(parts[:2])  # an event may name a file; an upload is looked at as a whole

    def _check_apart(self, word: str, url: str) -> None:
        try:
            filesystem, other = filesystem_of(url, use_listings_cache=False)
        except Exception:  # noqa: BLE001 - whoever uses it says so in his own words
            return
        here, there = (
            f"{os.path.realpath(path) if self._local else path.rstrip('/')}/" for path in (self._root, other)
        )
        if filesystem == self._fs and (here.startswith(there) or there.startswith(here)):
            raise BadInput(
                f"the inbox {self.shown} and the {word} {public_url(url)} lie inside each other; separate them"
            )


def _wish(content: bytes) -> _Wish:
    """What a `job.json` says.

    Raises:
        BadInput: with everything that is wrong with it.
    """
    try:
        said = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{NOTE}: not valid JSON: {error}", final=True) from None
    try:
        return _Wish.model_validate(said)
    except ValidationError as error:
        raise BadInput(
            [f"{NOTE}: {_problem(issue)}" for issue in error.errors(include_url=False)], final=True
        ) from None


def _problem(issue: ErrorDetails) -> str:
    key, known = ".".join(map(str, issue["loc"])), list(_Wish.model_fields)
    if issue["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key.lower(), known, n=1)
        meant = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
        return f"unknown key {reprlib.repr(key)}: {meant}"
    said = f"{issue['msg'][:1].lower()}{issue['msg'][1:]}; it is {reprlib.repr(issue['input'])}"
    return f"{key}: {said}" if key else said

"""Uploads: how what lies in an inbox is read as jobs.

    <inbox>/<effect>/<name>/          the images of one job, sorted by name: the first is the person on the left
    <inbox>/<effect>/<name>/job.json  if wanted, {"duration": 10, "take": 1}; there before the last image is
    <inbox>/<effect>/<file>           a job by itself, where the effect takes one image

Files whose name begins with a dot, those that systems leave behind, and those that programs name while they still
write them (`.part` and the like) are passed over. Everything else ends up in an upload, if only to be rejected with
its reason. Nothing here reads anything: what a listing shows is enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from tasks.effects import check_job
from tasks.errors import BadInput
from tasks.jobs import Job

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from tasks.effects import Catalogue
    from tasks.listing import Found

NOTE = "job.json"
MAX_NOTE_BYTES = 10_000

SETTLE_S = 3.0
"""Where a file can be seen before it is whole, one that was written to less than this long ago still grows."""

IN_NO_FOLDER = "it lies in no effect's folder: put it into <effect>/, or with others into <effect>/<name>/"
NOTE_ALONE = f"a {NOTE} is about the images beside it: put it with them into a folder <effect>/<name>/"
KEY_BYTES = 16

MAX_TOLD = 10
"""Files of one upload that are named in its reason."""


@dataclass(frozen=True, slots=True)
class Upload:
    """What was uploaded for one job.

    Attributes:
        name: its path inside the inbox.
        effect: the folder that it lies in; empty where it lies in none.
        images: paths inside the inbox, in order.
        note: path of its `job.json`.
        key: of exactly these files, and of what is wrong with them.
        problems: a line each; such an upload is rejected as it is.
        waits: why it is not complete; empty where it is.
        growing: it only has to be left alone for a moment.
        lasting: looking again ends the same until something is uploaded; false where it could not be looked at.
    """

    name: str
    effect: str = ""
    images: tuple[str, ...] = ()
    note: str | None = None
    key: str = ""
    files: tuple[Found, ...] = ()
    problems: tuple[str, ...] = ()
    waits: str = ""
    growing: bool = False
    lasting: bool = True


class _Judged(NamedTuple):
    """What is wrong with an upload, as far as the listing shows; and what is missing of it, where nothing is wrong."""

    problems: tuple[str, ...] = ()
    waits: str = ""


class Convention:
    """How the files of one inbox are read.

    Args:
        inbox: its URL, which goes into the keys.
        catalogue: what can be asked for.
        default_model: used before the catalogue's own default.

    Raises:
        BadInput: the default model is unknown; else every upload would be told.
    """

    def __init__(self, inbox: str, catalogue: Catalogue, default_model: str | None = None) -> None:
        self._catalogue, self._model = catalogue, default_model or catalogue.provider.default_model
        catalogue.model(self._model)
        self._max_bytes = catalogue.provider.images.max_bytes
        self._inbox = inbox
        self._shapes: dict[tuple[str, int, bool], _Judged] = {}

    def uploads(self, found: Iterable[Found], settled: Container[str], now: float) -> Iterator[Upload]:
        """The uploads that these files are, but those with a settled key.

        Args:
            found: every file of an upload, or none of it.
            settled: keys of uploads that need no further look.
            now: seconds since 1970.
        """
        folders: dict[str, list[Found]] = {}
        for file in found:
            parts = file.path.split("/", 2)
            if len(parts) == 3:  # noqa: PLR2004 - effect, name, the rest
                folders.setdefault(f"{parts[0]}/{parts[1]}/", []).append(file)
            elif upload := self._unsettled(file.path, [file], settled, now):
                yield upload
        for name, files in folders.items():
            files.sort()
            if upload := self._unsettled(name, files, settled, now):
                yield upload

    def _unsettled(self, name: str, files: Sequence[Found], settled: Container[str], now: float) -> Upload | None:
        """One upload, `<effect>/<name>/` or a file by itself; None where it is settled."""
        judged = self._judged(name, files)
        key = self._key(files, judged.problems)
        return None if key in settled else _upload(name, files, key, judged, now)

    def _judged(self, name: str, files: Sequence[Found]) -> _Judged:
        effect, slash, rest = name.partition("/")
        wrong = [problem for file in files if not self._is_plain(file) for problem in self._wrong(file, name)]
        if len(wrong) > MAX_TOLD:
            wrong[MAX_TOLD:] = [f"and {len(wrong) - MAX_TOLD} more"]
        if not slash:
            return _Judged((IN_NO_FOLDER, *wrong))
        if rest == NOTE:
            return _Judged((NOTE_ALONE, *wrong))
        alone = not name.endswith("/")
        count = 1 if alone else sum(file.path != name + NOTE for file in files)
        shape = effect, count, alone
        if shape not in self._shapes:
            self._shapes[shape] = self._shape(effect, count, alone=alone)
        judged = self._shapes[shape]
        if not (judged.problems or wrong):
            return judged
        names = [printable(file.path[len(name) :]) for file in files[:MAX_TOLD]]
        shown = f"there are {', '.join(names)}{', …' if len(files) > MAX_TOLD else ''}"
        return _Judged((*judged.problems, *([shown] if judged.problems and len(files) > 1 else []), *wrong))

    def _shape(self, effect: str, count: int, *, alone: bool) -> _Judged:
        """The same of that many images, in a folder of theirs or not, whatever they are."""
        try:
            row = self._catalogue.effect(effect)
        except BadInput as error:
            return _Judged(error.problems)
        problems, given = tuple[str, ...](), max(count, row.images)
        if alone and row.images > 1:
            problems = (f"{effect} takes {row.images} images: put them together into a folder {effect}/<name>/",)
        try:
            stand_in = Job(effect=effect, images=("?",) * given, duration=row.durations[0])
            check_job(stand_in, self._catalogue, default_model=self._model)
        except BadInput as error:
            problems += error.problems
        waits = f"{count} of {row.images} images so far" if count < row.images and not problems else ""
        return _Judged(problems, waits)

    def _is_plain(self, file: Found) -> bool:
        """Whether there is surely nothing wrong with a file: asked of every one in every sweep, so it is quick."""
        path, size, _, _, fault = file
        usual = 0 < size <= self._max_bytes and (size <= MAX_NOTE_BYTES or not path.endswith(NOTE))
        named = path.isascii() and path[0] != "/" and "::" not in path and "//" not in path and path.count("/") < 3  # noqa: PLR2004
        return usual and named and not fault

    def _wrong(self, file: Found, name: str) -> Iterator[str]:
        """What is wrong with one file."""
        path, size, _, _, fault = file
        leaf = printable(path.rpartition("/")[2])
        if fault:
            yield f"{leaf}: {fault}"
        elif not size:
            yield f"{leaf}: the file is empty"
        elif size > (MAX_NOTE_BYTES if leaf == NOTE else self._max_bytes):
            if leaf == NOTE:
                yield f"{leaf}: over {MAX_NOTE_BYTES // 1000} kB; that is no wish"
            else:
                # Rounded up: one byte too many must not read as "10 MB; at most 10 MB".
                yield f"{leaf}: {math.ceil(size / 10_000) / 100:g} MB; at most {self._max_bytes / 1e6:g} MB"
        if name.endswith("/") and "/" in path[len(name) :]:
            yield f"{printable(path[len(name) :])}: the images of a job lie in one folder, and no deeper"
        if "::" in path or "//" in path or path.startswith("/"):
            yield f"{printable(path)}: a name with ::, or a folder without a name, cannot be read; rename it"
        if not path.isascii() and not _is_text(path):
            yield f"{printable(path)}: its name is not in UTF-8; rename it"

    def _key(self, files: Sequence[Found], problems: tuple[str, ...]) -> str:
        # With the problems: once the catalogue or a setting mends them, it is looked at again.
        parts = [self._inbox, *(f"{file.path}\0{file.version}" for file in files), *problems]
        return blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=KEY_BYTES).hexdigest()


def _upload(name: str, files: Sequence[Found], key: str, judged: _Judged, now: float) -> Upload:
    note = name + NOTE if name.endswith("/") else None
    growing = any(file.modified is not None and abs(now - file.modified) < SETTLE_S for file in files)
    if growing:
        judged = _Judged(waits="it was written to a moment ago, and may still grow")
    paths = [file.path for file in files]
    return Upload(
        name=printable(name.rstrip("/")),
        effect=printable(name.partition("/")[0]) if "/" in name else "",
        images=tuple(path for path in paths if path != note),
        note=note if note in paths else None,
        key=key,
        files=tuple(files),
        problems=judged.problems,
        waits=judged.waits,
        growing=growing,
    )


def printable(name: str) -> str:
    """The name as it may be shown and kept: one line of text, whatever bytes it was made of."""
    return name if name.isprintable() else repr(name)[1:-1]


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True

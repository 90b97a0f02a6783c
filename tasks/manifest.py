"""A manifest: many jobs in one file, JSONL or CSV at any fsspec URL, read row by row and never held.

JSONL is one object a line; blank lines, and lines that begin with `#`, are skipped. CSV begins with a line that names
its columns, separated by `,`, `;` or a tab; rows without any content are skipped. Which of the two a file is, its
name's ending says, else its first character. The keys or columns, in any order; null and empty mean absent:

    effect    required
    images    required: a list, or one text for one image. In a CSV's cell, images are separated by `|` or line ends
              (not by `;`, which data URIs and some links contain), or are a JSON list
    duration  seconds; 5 where absent
    take      0 where absent
    name      what people see, need not be unique; made of the images' names where absent
    model     the provider's model id; the default where absent

An image with a scheme (`s3://…`, `data:…`), or that begins with `/` or `~`, is taken as it is. Any other lies beside
the manifest, wherever that is: `a.jpg` in `s3://bucket/friday/jobs.csv` is `s3://bucket/friday/a.jpg`, and in
`zip://jobs.csv::https://…` another file of the same archive. A link's query string is not handed on.
"""

from __future__ import annotations

import csv
import difflib
import json
import posixpath
import re
import reprlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, BinaryIO
from urllib.parse import urljoin

import aiohttp
from fsspec.implementations.local import LocalFileSystem
from pydantic import BaseModel, Field, ValidationError

from tasks.effects import check_job
from tasks.errors import BadInput
from tasks.jobs import Job, public_url
from tasks.storage import LASTING, explain, filesystem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from fsspec import AbstractFileSystem
    from pydantic_core import ErrorDetails

    from tasks.effects import Catalogue

    Fields = dict[str, object]

KEYS = ("effect", "images", "duration", "take", "name", "model")
DEFAULT_DURATION_S = 5
JSONL_ENDINGS = (".jsonl", ".ndjson", ".json-lines", ".jsonlines")
CSV_ENDINGS = (".csv", ".tsv")
MAX_ROW_BYTES = 100_000  # two long signed links have a twentieth of it
MAX_ROW_LINES = 50  # a CSV's row of more has a quote that was never closed
MAX_NAME_CHARACTERS = 100
MAX_NUMBER = 1_000_000
MAX_TOLD = 10
CHUNK_BYTES = 256 * 1024
BLOCK_BYTES = 4 * 1024 * 1024  # asked of an object store at once; s3fs would ask for 50 MB, and hold them
WEB = ("http://", "https://")
WEB_SILENCE_S = 60.0  # a web server may take any time in all, but not be silent for longer

_AS_IT_IS = re.compile(r"[A-Za-z][\w+.-]*(://|::)|data:|[/~\\]|[A-Za-z]:[/\\]")
_Text = Annotated[str, Field(min_length=1)]  # without a length, pydantic does not look whether it is UTF-8
_TOLD = {"missing": "is missing", "too_short": "is missing", "string_unicode": "is not in UTF-8"}


class _Wish(BaseModel):
    """What a row can say."""

    effect: _Text
    images: Annotated[list[_Text], Field(min_length=1)]
    duration: Annotated[int, Field(ge=0, le=MAX_NUMBER)] = DEFAULT_DURATION_S
    take: Annotated[int, Field(ge=0, le=MAX_NUMBER)] = 0
    name: Annotated[_Text, Field(coerce_numbers_to_str=True)] = ""
    model: _Text | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a manifest, looked at.

    Attributes:
        number: of its first line, from 1, as an editor shows it.
        name: one printable line of at most `MAX_NAME_CHARACTERS`.
        job: what it asks for, its images' URLs in full; None where there are problems.
        problems: everything that is wrong with it, a line each.
        same_as: number of the first row of the same effect, image URLs, duration, take and model.
    """

    number: int
    name: str
    job: Job | None
    problems: tuple[str, ...] = ()
    same_as: int | None = None


def read_manifest(url: str, catalogue: Catalogue, *, default_model: str | None = None) -> Iterator[Row]:
    """Every row that has content, in order and checked; a bad row never stops the others.

    It blocks while it reads: in a coroutine, a thread takes the rows. Memory does not grow with the file, but for the
    digests by which equal rows are found: some 150 bytes a row. The file is open from the first row to the last.

    Args:
        url: a local path or any fsspec URL.
        catalogue: what can be asked for.
        default_model: used where a row names no model, before the catalogue's own default.

    Raises:
        BadInput: instead of the first row, where the manifest cannot be read, has no rows, is not a text in UTF-8, is
            a CSV without its columns' names, or where the default model is unknown; later, where reading breaks off.
    """
    default = catalogue.model(default_model or catalogue.provider.default_model).id  # else every row would tell
    seen: dict[bytes, int] = {}
    number = 0
    _kept, file, place = _open(url)  # an archive is closed with its filesystem
    with closing(file):
        for number, fields in _rows(_Lines(file, url)):
            row = _row(number, fields, catalogue, default, place)
            if job := row.job:
                wish = repr((job.effect, job.images, job.duration, job.take, job.model or default))
                same_as = seen.setdefault(blake2b(wish.encode(), digest_size=16).digest(), number)
                row = row if same_as == number else replace(row, same_as=same_as)
            yield row
    if not number:
        raise _bad(url, "the manifest has no rows")


def _bad(url: str, problem: str) -> BadInput:
    return BadInput(f"{public_url(url)}: {problem}")


def _unreadable(url: str, error: Exception) -> BadInput:
    # The words of an error may quote a signed URL in a spelling of their own: its kind says enough then.
    reason = explain(error) if url == public_url(url) or isinstance(error, OSError) else type(error).__name__
    if isinstance(status := getattr(error, "status", None), int):
        reason = f"the web server answers HTTP {status}"
    transient = not isinstance(error, (*LASTING, ValueError, ImportError))
    return BadInput(f"{public_url(url)}: the manifest cannot be read: {reason}", transient=transient)


def _open(url: str) -> tuple[AbstractFileSystem, BinaryIO, tuple[str, str]]:
    """Its filesystem and its bytes; and what a URL has before and after the name of an image that lies beside it."""
    how: dict[str, object] = {"block_size": BLOCK_BYTES}
    if web := url.startswith(WEB):  # one stream, its size unasked: not every server knows ranges
        how = {"block_size": 0, "size": 1, "timeout": aiohttp.ClientTimeout(total=None, sock_read=WEB_SILENCE_S)}
    try:
        filesystem, path = filesystem_of(url)
        if not re.search("https?://|^data:", url) and filesystem.isdir(path):  # a bucket may open it as an empty file
            raise IsADirectoryError(path)  # noqa: TRY301 - told like any other
        file: BinaryIO = filesystem.open(path, "rb", **how)
    except Exception as error:  # noqa: BLE001 - each filesystem behind fsspec raises its own kinds
        raise _unreadable(url, error) from None
    links = re.sub(r"^(\w+::)+", "", url).split("::")  # without the `simplecache` of `simplecache::s3://…`
    link = path if isinstance(filesystem, LocalFileSystem) else links[0]
    before = urljoin(link, ".") if web else link[: link.rfind("/") + 1] if link[:5] != "data:" else ""
    return filesystem, file, (before, "".join(f"::{link}" for link in links[1:]))


class _Lines(Iterator[str]):
    """The lines of a file, with their ends, row by row; those of the row that is being read can be taken back."""

    def __init__(self, file: BinaryIO, url: str) -> None:
        self.url = url
        self._start = 1
        self._row: list[bytes] = []
        self._back: list[bytes] = []
        self._ahead = _split(file, url)

    def __next__(self) -> str:
        self._row.append(self._back.pop() if self._back else next(self._ahead))
        if len(self._row) > MAX_ROW_LINES or sum(map(len, self._row)) > MAX_ROW_BYTES:
            raise csv.Error(f"over {MAX_ROW_BYTES // 1000} kB or {MAX_ROW_LINES} lines; is a quote left open?")
        return self._row[-1].decode(errors="surrogateescape")  # what is not UTF-8 is told with its cell

    def next_row(self) -> int:
        self._start += len(self._row)
        self._row.clear()
        return self._start

    def take_back(self, first: int) -> None:
        self._back += reversed(self._row[first:])
        del self._row[first:]

    def peek(self) -> str:
        """The first line with content, stripped; it comes again."""
        try:
            while not (line := next(self).strip()):
                self.next_row()
        except (StopIteration, csv.Error) as error:
            raise _bad(self.url, str(error) or "the manifest has no rows") from None
        if re.search("[\0\ud800-\udfff]", line):
            raise _bad(self.url, f"not a text in UTF-8 (at line {self._start})")
        self.take_back(0)
        return line


def _split(file: BinaryIO, url: str) -> Iterator[bytes]:
    """The lines, ended by LF, CR LF or CR, without a BOM; of one that is too long, little more than makes it so."""
    rest, bom = b"", b"\xef\xbb\xbf"
    while True:
        try:
            chunk = file.read(CHUNK_BYTES)
        except Exception as error:  # noqa: BLE001 - each filesystem behind fsspec raises its own kinds
            raise _unreadable(url, error) from None
        lines = (rest + chunk).splitlines(keepends=True)
        rest = lines.pop() if chunk and not lines[-1].endswith(b"\n") else b""  # a CR may be half of an end
        for line in lines:
            yield line.removeprefix(bom)
            bom = b""
        if not chunk:
            return
        if bom and len(rest) > MAX_ROW_BYTES:
            raise _bad(url, f"over {MAX_ROW_BYTES // 1000} kB in its first line; that is no manifest")
        rest = rest[:MAX_ROW_BYTES] + rest[MAX_ROW_BYTES:][-1:]


def _rows(lines: _Lines) -> Iterator[tuple[int, Fields | str]]:
    """Rows by their number: what each says, or why that cannot be told."""
    first = lines.peek()
    ending = posixpath.splitext(re.split(r"::|\?", public_url(lines.url))[0])[1].lower()
    jsonl = ending in JSONL_ENDINGS or (ending not in CSV_ENDINGS and first[0] in "{[#")
    if jsonl and first in {"{", "["}:
        raise _bad(lines.url, "JSON over several lines; write one object a line (JSONL)")
    take: Callable[[], Fields | None] = (lambda: _object(next(lines))) if jsonl else _cells(lines)
    while True:
        number = lines.next_row()
        try:
            fields: Fields | str | None = take()
        except StopIteration:
            return
        except csv.Error as error:
            lines.take_back(1)  # the further lines may be rows by themselves
            fields = f"the row cannot be read: {error}"
        except ValueError as error:
            fields = str(error)
        if fields is not None:
            yield number, fields


def _object(line: str) -> Fields | None:
    """What a row of a JSONL says; None is one without content."""
    text = line.strip()
    if not text or text.startswith("#"):
        return None
    if not isinstance(value := _json(text), dict):
        raise ValueError(f"not an object in {{}}, but {reprlib.repr(value)}")  # noqa: TRY004 - a problem of the row
    return value | ({"images": [value["images"]]} if isinstance(value.get("images"), str) else {})


def _json(text: str) -> object:
    def once(pairs: list[tuple[str, object]]) -> Fields:
        if len(dict(pairs)) < len(pairs):
            raise ValueError("a key is there twice")  # either could be meant
        # Pydantic would take true for 1.
        return {key: str(said) if isinstance(said, bool) else said for key, said in pairs if said not in (None, "")}

    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON: {error}".replace("line 1 ", "")) from None


def _cells(lines: _Lines) -> Callable[[], Fields | None]:
    """What takes the next row of a CSV, whose first one names the columns; None is one without content."""
    names = next(lines).lower().replace('"', "").replace(" ", "").rstrip("\r\n")
    delimiter = max(",;\t", key=lambda mark: len({*KEYS}.intersection(names.split(mark))))
    columns = names.split(delimiter)
    problems = [f"there is no column {key}" for key in ("effect", "images") if key not in columns]
    problems += [f"the column {key} is there twice" for key in KEYS if columns.count(key) > 1]
    problems += _unknown("column", filter(None, columns)).values()
    if problems:
        raise _bad(lines.url, f"the first row has to name the columns: {'; '.join(problems)}")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)

    def take() -> Fields | None:
        cells = [cell.strip() for cell in next(reader)]
        if any(cell and not name for name, cell in zip_longest(columns, cells, fillvalue="")):
            raise ValueError(f"there is a cell without a column; one that contains {delimiter!r} has to be in quotes")
        fields: Fields = {name: cell for name, cell in zip(columns, cells, strict=False) if cell}
        if images := str(fields.get("images", "")):
            listed = (part.strip() for part in re.split(r"[|\r\n]", images))
            fields["images"] = _json(images) if images.startswith("[") else [part for part in listed if part]
        return fields or None

    return take


def _unknown(word: str, names: Iterable[str]) -> dict[str, str]:
    told = {}
    for name in [name for name in names if name not in KEYS][:MAX_TOLD]:
        close = difflib.get_close_matches(name[:MAX_NAME_CHARACTERS].lower(), KEYS, n=1)
        meant = f"did you mean {close[0]}?" if close else f"known are {', '.join(KEYS)}"
        told[name] = f"unknown {word} {reprlib.repr(name)}: {meant}"
    return told


def _row(number: int, fields: Fields | str, catalogue: Catalogue, default_model: str, place: tuple[str, str]) -> Row:
    """The row, with every problem that it has."""
    if isinstance(fields, str):
        return Row(number, f"row {number}", None, (fields,))
    bad = _unknown("key", fields)
    try:
        wish = _Wish.model_validate(fields)
    except ValidationError as error:
        for issue in error.errors(include_url=False):
            bad.setdefault(str(issue["loc"][0]), _told(issue))
        # What was told gets a stand-in, so that the rest is told as well.
        effect = catalogue.effects.get(str(fields.get("effect")))
        stand_in = {"effect": "?", "images": ["?"] * (effect.images if effect else 1)}
        wish = _Wish.model_validate(stand_in | {key: value for key, value in fields.items() if key not in bad})
    images = tuple(_full(image, *place) for image in wish.images)
    job = Job(effect=wish.effect, images=images, duration=wish.duration, model=wish.model, take=wish.take)
    problems = list(bad.values())
    if "effect" not in bad:
        try:
            check_job(job, catalogue, default_model=default_model)
        except BadInput as error:
            problems += error.problems
    name = " ".join((wish.name or _name([] if "images" in bad else wish.images)).split()) or f"row {number}"
    name = name if name.isprintable() else repr(name)[1:-1]
    return Row(number, name[:MAX_NAME_CHARACTERS], None if problems else job, tuple(problems))


def _told(issue: ErrorDetails) -> str:
    told = f"{issue['msg'][:1].lower()}{issue['msg'][1:]}; it is {reprlib.repr(issue['input'])}"
    return f"{issue['loc'][0]}: {_TOLD.get(issue['type'], told)}"


def _full(image: str, before: str, after: str) -> str:
    """The URL of an image beside the manifest; of one that stands by itself, what it is."""
    if _AS_IT_IS.match(image):
        return image
    scheme, mark, path = f"{before}{image}".partition("://")
    if mark and image.startswith(("./", "../")):  # disks know such folders, object stores do not
        path = posixpath.normpath(path)
    return f"{scheme}{mark}{path}{after}"


def _name(images: list[str]) -> str:
    shown = (re.split(r"::|\?", public_url(image))[0] if ":" in image else image for image in images)
    files = [path.rpartition("/")[2] for path in shown if path[:5] != "data:"]
    return " + ".join([file.rpartition(".")[0] or file for file in files if file])

"""A manifest: many jobs in one file, JSONL or CSV at any fsspec URL, read row by row and never held.

JSONL is one object a line; blank lines, and lines that begin with `#`, are skipped. CSV begins with a line that names
its columns, separated by `,`, `;` or a tab; rows without any content are skipped. Which of the two it is, the name's
ending says, else the first character. The keys or columns, in any order:

    effect    required
    images    required: a list, or one text for one image. In a CSV's cell, images are separated by `|` or stand on
              a line each (never by `;`, which is part of data URIs and of some links), or are a JSON list
    duration  seconds; 5 where empty or absent
    take      0 where empty or absent
    name      what people see; made of the images' names where empty or absent. Need not be unique
    model     the provider's model id; the default where empty or absent

An image with a scheme (`s3://…`, `data:…`), or that begins with `/` or `~`, is taken as it is. Any other lies beside the
manifest, wherever that is: `a.jpg` in `s3://bucket/friday/jobs.csv` is `s3://bucket/friday/a.jpg`; the web's query
strings are not handed on. In `zip://jobs.csv::https://…` it is another file of the same archive.
"""

from __future__ import annotations

import csv
import difflib
import json
import posixpath
import re
import reprlib
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urljoin

import aiohttp
from fsspec.implementations.local import LocalFileSystem

from tasks.effects import check_job
from tasks.errors import BadInput
from tasks.jobs import Job, public_url
from tasks.storage import LASTING, explain, filesystem_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tasks.effects import Catalogue

KEYS = ("effect", "images", "duration", "take", "name", "model")
REQUIRED = ("effect", "images")
DEFAULT_DURATION_S = 5
JSONL_ENDINGS = (".jsonl", ".ndjson", ".json-lines", ".jsonlines")
CSV_ENDINGS = (".csv", ".tsv")
MAX_ROW_BYTES = 100_000
"""Beyond this a row is a problem: two long signed links are a twentieth of it."""

MAX_ROW_LINES = 50
"""A CSV row with more lines than this has a quote that was never closed."""

MAX_NAME_CHARACTERS = 100
MAX_UNKNOWN_SHOWN = 5
CHUNK_BYTES = 256 * 1024
BLOCK_BYTES = 4 * 1024 * 1024
"""What is asked of an object store at once; s3fs would ask for, and hold, 50 MB."""

HTTP_SILENCE_S = 60.0
"""A web server may take as long as it likes in all, but not say nothing for so long."""

_AS_IT_IS = re.compile(r"[A-Za-z][\w+.-]*::?//|[A-Za-z][\w+.-]*::|data:|[/~\\]|[A-Za-z]:[/\\]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_WHOLE = re.compile(r"[+-]?\d{1,9}(\.0+)?", re.ASCII)

_Fields = dict[str, object]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a manifest, looked at.

    Attributes:
        number: of its first line, from 1, as an editor shows it.
        name: one printable line of at most `MAX_NAME_CHARACTERS`.
        job: what it asks for, its images' URLs in full; None where there are problems.
        problems: everything that is wrong with it, a line each.
        same_as: number of the first row that asks for exactly the same (effect, image URLs, duration, take, model).
            Equal photos under different names are found only once they were fetched.
    """

    number: int
    name: str
    job: Job | None
    problems: tuple[str, ...] = ()
    same_as: int | None = None


def read_manifest(url: str, catalogue: Catalogue, *, default_model: str | None = None) -> Iterator[Row]:
    """Every row that has content, in order and checked; a bad row never stops the others.

    It blocks while it reads, so a coroutine has a thread take it up. Memory does not grow with the file, except for
    some 150 bytes a row by which equal rows are found. Nothing is opened before the first row is asked for; the file
    is closed after the last one, or with the generator.

    Args:
        url: a local path or any fsspec URL.
        catalogue: what can be asked for.
        default_model: used where a row names no model, before the catalogue's own default.

    Raises:
        BadInput: where the manifest cannot be read (to its end), is empty, is not text in UTF-8, is a CSV whose first
            line does not name the columns, or where the default model is unknown.
    """
    if default_model:
        catalogue.model(default_model)  # else every row would say so
    where = public_url(url)
    file, folder = _open(url, where)
    with closing(file):
        lines = _Lines(file, where)
        first = lines.peek()
        ending = posixpath.splitext(where.split("::")[0])[1].lower()
        table = ending in CSV_ENDINGS or (ending not in JSONL_ENDINGS and first[0] not in "{[#")
        reader = _Reader(catalogue, default_model, folder, table)
        empty = True
        for number, wish in _cells(lines, first) if table else _objects(lines, first):
            empty = False
            yield reader.row(number, wish)
    if empty:
        raise BadInput(f"{where}: the manifest has no rows")


def _open(url: str, where: str) -> tuple[BinaryIO, _Folder | None]:
    """The manifest's bytes, and where it lies."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=HTTP_SILENCE_S, sock_read=HTTP_SILENCE_S)
    options = {scheme: {"client_kwargs": {"timeout": timeout}} for scheme in ("http", "https") if f"{scheme}://" in url}
    try:
        filesystem, path = filesystem_of(url, **options)
        # The web as one stream, its size unasked: servers need not offer ranges.
        how = {"block_size": 0, "size": 1} if url.startswith(("http://", "https://")) else {"block_size": BLOCK_BYTES}
        file: BinaryIO = filesystem.open(path, "rb", **how)
    except Exception as error:  # noqa: BLE001 - each filesystem behind fsspec raises its own kinds
        raise _unreadable(error, url, where) from None
    return file, _folder(url, path if isinstance(filesystem, LocalFileSystem) else None)


def _unreadable(error: Exception, url: str, where: str) -> BadInput:
    status = getattr(error, "status", None)
    # The words of an error may quote a signed URL in a spelling of their own: its kind says enough then.
    reason = explain(error) if url == where or isinstance(error, OSError) else type(error).__name__
    reason = f"the web server answers HTTP {status}" if isinstance(status, int) else reason.replace(url, where)
    transient = not isinstance(error, (*LASTING, ValueError, ImportError))
    return BadInput(f"{where}: the manifest cannot be read: {reason}", transient=transient)


@dataclass(frozen=True, slots=True)
class _Folder:
    """Where the manifest lies; `before` and `after` are what a URL there has around the path."""

    before: str
    path: str
    after: str = ""

    def url_of(self, image: str) -> str:
        """The image beside the manifest; one that stands by itself, as it is."""
        if _AS_IT_IS.match(image):
            return image
        path = self.path
        while self.before and image.startswith(("./", "../")):  # object stores know no such folders; disks do
            step, _, image = image.partition("/")
            path = posixpath.dirname(path) if step == ".." else path
        return f"{self.before}{posixpath.join(path, image)}{self.after}"


def _folder(url: str, local: str | None) -> _Folder | None:
    """The folder of the manifest at `url`, whose path on this machine is `local`; None where it lies in none."""
    if local is not None:
        return _Folder("", posixpath.dirname(local))
    links = url.split("::")
    while links and "://" not in links[0]:  # such as the `simplecache` of `simplecache::s3://…`
        links.pop(0)
    if not links:
        return None
    link = urljoin(links[0], ".") if links[0].startswith(("http://", "https://")) else links[0]
    scheme, _, path = link.partition("://")
    return _Folder(f"{scheme}://", posixpath.dirname(path), "".join(f"::{link}" for link in links[1:]))


class _Lines:
    """The lines of a file, with their ends, as text; the last few can be taken back. `start` is the row's first."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self.where = where
        self.start = 1
        self._row: list[bytes] = []
        self._back: deque[bytes] = deque()
        self._lines = _split(file, where)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else next(self._lines)
        self._row.append(line)
        if len(self._row) > MAX_ROW_LINES or sum(map(len, self._row)) > MAX_ROW_BYTES:
            quote = "; is a quote left open on this line?" if len(self._row) > 1 else ""
            raise _TooLongError(f"more than {MAX_ROW_BYTES // 1000} kB or {MAX_ROW_LINES} lines in one row{quote}")
        return line.decode(errors="surrogateescape")  # told with the cell, and rows are found all the same

    def next_row(self) -> int:
        """Begin a row: the number of its first line."""
        self.start += len(self._row)
        self._row.clear()
        return self.start

    def take_back(self, keep: int) -> None:
        """Have all lines of this row but the first few come again."""
        self._back.extendleft(reversed(self._row[keep:]))
        del self._row[keep:]

    def peek(self) -> str:
        """The first line with content, stripped.

        Raises:
            BadInput: where there is none, or it is no text.
        """
        line = ""
        while not line:
            self.next_row()
            try:
                line = next(self).strip()
            except (StopIteration, _TooLongError) as error:
                raise BadInput(f"{self.where}: {error or 'the manifest is empty'}") from None
        if _SURROGATE.search(line) or "\0" in line:
            raise BadInput(f"{self.where}: not a text in UTF-8 (at line {self.start})")
        self.take_back(0)
        return line


class _TooLongError(Exception):
    """A row is longer than any row may be."""


def _split(file: BinaryIO, where: str) -> Iterator[bytes]:
    """The lines, ended by LF, CR LF or CR, without a BOM; of one that is too long, hardly more than makes it so."""
    rest, began = b"", False
    while chunk := _read(file, where):
        lines = (rest + chunk).splitlines(keepends=True)
        rest = b"" if lines[-1].endswith(b"\n") else lines.pop()  # a CR may be half of an end
        for line in lines:
            yield line if began else line.removeprefix(b"\xef\xbb\xbf")
            began = True
        if len(rest) > MAX_ROW_BYTES:
            if not began:
                raise BadInput(f"{where}: its first line has over {MAX_ROW_BYTES // 1000} kB; that is no manifest")
            rest = rest[:MAX_ROW_BYTES] + rest[-1:]
    if rest:
        yield rest if began else rest.removeprefix(b"\xef\xbb\xbf")


def _read(file: BinaryIO, where: str) -> bytes:
    try:
        return file.read(CHUNK_BYTES)
    except Exception as error:  # noqa: BLE001 - each filesystem behind fsspec raises its own kinds
        raise _unreadable(error, "", where) from None


def _objects(lines: _Lines, first: str) -> Iterator[tuple[int, _Fields | str]]:
    """The rows of a JSONL, each by its number: what it says, or what is wrong with it."""
    if first in {"{", "["}:
        raise BadInput(f"{lines.where}: JSON that goes over several lines; write one object a line (JSONL)")
    while True:
        number = lines.next_row()
        try:
            text = next(lines).strip()
        except StopIteration:
            return
        except _TooLongError as error:
            yield number, str(error)
            continue
        if text and not text.startswith("#"):
            yield number, _object(text)


def _object(text: str) -> _Fields | str:
    try:
        value = json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        return f"not valid JSON: {error.msg} (column {error.colno})"
    except (ValueError, RecursionError) as error:
        return f"not valid JSON: {error}"
    return value if isinstance(value, dict) else f"not an object such as {{…}}, but {reprlib.repr(value)}"


def _once(pairs: list[tuple[str, object]]) -> _Fields:
    """The object; a key that is there twice could mean either."""
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key is there twice")
    return made


def _cells(lines: _Lines, first: str) -> Iterator[tuple[int, _Fields | str]]:
    """The rows of a CSV, each by its number: what it says, or what is wrong with it."""
    delimiter = max(",;\t", key=lambda mark: sum(_column(cell) in KEYS for cell in first.split(mark)))
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)
    columns: list[str] = []
    while True:
        number = lines.next_row()
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except (csv.Error, _TooLongError) as error:
            if not columns:
                raise BadInput(f"{lines.where}: line {number} has to name the columns: {error}") from None
            lines.take_back(1)  # they may be rows by themselves
            yield number, f"not valid CSV: {error}"
            continue
        if not any(cells):
            continue
        if not columns:
            columns = _columns(cells, lines.where)
        elif any(cell for cell, column in zip(cells, columns, strict=False) if not column) or any(cells[len(columns) :]):
            yield number, f"more cells than columns ({len(columns)}); a cell that holds {delimiter!r} needs quotes"
        else:
            yield number, dict(zip(columns, cells, strict=False))


def _column(cell: str) -> str:
    return cell.strip().strip('"').strip().lower()


def _columns(cells: list[str], where: str) -> list[str]:
    """What the first row of a CSV names; a column may be without a name, as long as it is empty.

    Raises:
        BadInput: naming what is missing, what is there twice and what is unknown.
    """
    columns = [_column(cell) for cell in cells]
    problems = [f"there is no column {key}" for key in REQUIRED if key not in columns]
    problems += [f"the column {key} is there twice" for key in KEYS if columns.count(key) > 1]
    problems += _unknown("column", [column for column in columns if column])
    if problems:
        raise BadInput([f"{where}: the first row has to name the columns: {problem}" for problem in problems])
    return columns


def _unknown(word: str, names: Iterable[str]) -> list[str]:
    unknown = [name for name in names if name not in KEYS]
    problems = []
    for name in unknown[:MAX_UNKNOWN_SHOWN]:
        close = difflib.get_close_matches(name[:MAX_NAME_CHARACTERS].strip().lower(), KEYS, n=1)
        meant = f"did you mean {close[0]}?" if close else f"known are {', '.join(KEYS)}"
        problems.append(f"unknown {word} {reprlib.repr(name)}: {meant}")
    more = len(unknown) - MAX_UNKNOWN_SHOWN
    return [*problems, f"… and {more} more unknown {word}s"] if more > 0 else problems

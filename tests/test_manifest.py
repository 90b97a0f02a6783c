"""Manifests: what a row can say in JSONL and CSV, where its images lie, and what becomes of everything else."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import subprocess
import sys
import textwrap
import threading
import tracemalloc
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import manifest
from tasks.effects import load_catalogue
from tasks.errors import BadInput
from tasks.jobs import Job
from tasks.manifest import Row, read_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

CATALOGUE = load_catalogue()
PRO, STANDARD = "klingai/kling-video-v1.6-pro-effects", "klingai/kling-video-v1.6-standard-effects"
HUG = {"effect": "hug", "images": ["a.jpg", "b.jpg"]}
HEAD = "effect,images,duration,take,name,model\n"


def rows(content: str | bytes, name: str = "jobs.jsonl", default_model: str | None = None) -> list[Row]:
    """What is read of that content."""
    url = f"memory://in/{name}"
    with fsspec.open(url, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return list(read_manifest(url, CATALOGUE, default_model=default_model))


def refusal(content: str | bytes, name: str) -> str:
    """The one line that a manifest is refused with."""
    with pytest.raises(BadInput) as caught:
        rows(content, name)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    return problem.removeprefix(f"memory://in/{name}: ")


def lines(*objects: object) -> str:
    return "".join(json.dumps(each) + "\n" for each in objects)


def job(effect: str, *images: str, duration: int = 5, take: int = 0, model: str | None = None) -> Job:
    urls = tuple(image if "://" in image else f"memory://in/{image}" for image in images)
    return Job(effect=effect, images=urls, duration=duration, take=take, model=model)


GOOD: dict[str, tuple[object, str, Job, str]] = {
    "least": ({"effect": "squish", "images": ["a.jpg"]}, "squish,a.jpg", job("squish", "a.jpg"), "a"),
    "one image as text": ({"effect": "squish", "images": "a.jpg"}, "squish, a.jpg ", job("squish", "a.jpg"), "a"),
    "two images": (HUG, "hug,a.jpg| b.jpg", job("hug", "a.jpg", "b.jpg"), "a + b"),
    "list in a cell": (HUG, 'hug,"[""a.jpg"", ""b.jpg""]"', job("hug", "a.jpg", "b.jpg"), "a + b"),
    "an image a line": (HUG, 'hug,"a.jpg\nb.jpg"', job("hug", "a.jpg", "b.jpg"), "a + b"),
    "everything": (
        {**HUG, "duration": 10, "take": 3, "name": "Ada", "model": STANDARD},
        f"hug,a.jpg|b.jpg,10,3,Ada,{STANDARD}",
        job("hug", "a.jpg", "b.jpg", duration=10, take=3, model=STANDARD),
        "Ada",
    ),
    "nothing and empty": (
        {**HUG, "duration": None, "take": "", "name": None, "model": ""},
        "hug,a.jpg|b.jpg,,,,",
        job("hug", "a.jpg", "b.jpg"),
        "a + b",
    ),
    "numbers of a spreadsheet": (
        {**HUG, "duration": 10.0, "take": "1", "name": 17},
        "hug,a.jpg|b.jpg,10.0,1.0,17",
        job("hug", "a.jpg", "b.jpg", duration=10, take=1),
        "17",
    ),
    "name over several lines": (
        {"effect": "squish", "images": ["a.jpg"], "name": " Ada\r\n\tLovelace "},
        'squish,a.jpg,,," Ada\r\n\tLovelace "',
        job("squish", "a.jpg"),
        "Ada Lovelace",
    ),
    "other places": (
        {"effect": "hug", "images": ["s3://x/q/b.c.png", "https://me:pw@host/d.png?sig=s3cret"]},
        "hug,s3://x/q/b.c.png|https://me:pw@host/d.png?sig=s3cret",
        job("hug", "s3://x/q/b.c.png", "https://me:pw@host/d.png?sig=s3cret"),
        "b.c + d",
    ),
}


class TestRow:
    """What a row can say."""

    @pytest.mark.parametrize(("said", "cells", "wanted", "name"), GOOD.values(), ids=GOOD)
    def test_good(self, said: object, cells: str, wanted: Job, name: str) -> None:
        """The same row, in JSONL and in CSV, is the same job under the same name."""
        assert rows(lines(said)) == [Row(1, name, wanted)]
        assert rows(f"{HEAD}{cells}\n", "jobs.csv") == [Row(2, name, wanted)]

    @pytest.mark.parametrize(
        ("said", "problems"),
        [
            ({}, ["effect: is missing", "images: is missing"]),
            (
                {"efect": "hug"},
                ["unknown key 'efect': did you mean effect?", "effect: is missing", "images: is missing"],
            ),
            ({**HUG, "Take": 1}, ["unknown key 'Take': did you mean take?"]),
            ({**HUG, "x\u001b[2J": 1}, [r"unknown key 'x\\x1b[2J': known are effect, images"]),
            ({**HUG, "effect": "hugg"}, ["unknown effect 'hugg': did you mean 'hug'?"]),
            ({**HUG, "effect": 5}, ["effect: input should be a valid string; it is 5"]),
            (
                {**HUG, "images": ["a.jpg"]},
                ["hug needs two images (the first is the person on the left); one was given"],
            ),
            ({**HUG, "images": []}, ["images: is missing"]),
            ({**HUG, "images": ["a.jpg", ""]}, ["images: string should have at least 1 character; it is ''"]),
            ({**HUG, "images": {"a": 1}}, ["images: input should be a valid list; it is {'a': 1}"]),
            ({**HUG, "images": [5, 6, 7]}, ["images: input should be a valid string; it is 5"]),
            ({**HUG, "images": ["a.jpg", "\ud800"]}, ["images: is not in UTF-8"]),
            ({**HUG, "\ud800": "\ud800"}, [r"unknown key '\\ud800'"]),
            ({**HUG, "duration": 7}, ["hug lasts 5 or 10 seconds; a duration of 7 was asked for"]),
            ({**HUG, "duration": 5.5}, ["duration: input should be a valid integer"]),
            ({**HUG, "duration": "five"}, ["duration: input should be a valid integer"]),
            ({**HUG, "duration": float("nan")}, ["duration: input should be a finite number"]),
            ({**HUG, "duration": 10**400}, ["duration: "]),
            ({**HUG, "take": -1}, ["take: input should be greater than or equal to 0; it is -1"]),
            ({**HUG, "take": True}, ["take: input should be a valid integer"]),
            ({**HUG, "take": 10**9}, ["take: input should be less than or equal to 1000000"]),
            ({**HUG, "name": ["Ada"]}, ["name: input should be a valid string; it is ['Ada']"]),
            ({**HUG, "model": "sora"}, ["unknown model 'sora': known are "]),
            (
                {"effect": "hugg", "images": 5, "duration": "x", "take": -1, "model": "y", "z": 1},
                ["unknown key 'z'", "images: ", "duration: ", "take: ", "unknown effect 'hugg'", "unknown model 'y'"],
            ),
            ({"effect": "hug", "duration": 7}, ["images: is missing", "hug lasts 5 or 10 seconds"]),
            ([HUG], ["not an object in {}, but [{'effect'"]),
            ("hug", ["not an object in {}, but 'hug'"]),
        ],
    )
    def test_bad(self, said: object, problems: list[str]) -> None:
        """Each problem is told, none twice, and none hides another; the rows around it are read."""
        before, row, after = rows(lines(HUG, said, {**HUG, "take": 1}))
        assert before.job
        assert after.job
        assert (row.number, row.job) == (2, None)
        for told, wanted in itertools.zip_longest(row.problems, problems, fillvalue="nothing"):
            assert told.startswith(wanted.replace("\\\\", "\\"))
            assert told.isprintable()

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("{bad", "not valid JSON: Expecting property name enclosed in double quotes: column 2 (char 1)"),
            ('{"effect": "hug", "effect": "kiss"}', "not valid JSON: a key is there twice"),
            ("[" * 90_000, "not valid JSON: maximum recursion depth"),
            ('{"take": ' + "9" * 5000 + "}", "not valid JSON: Exceeds the limit"),
            ('{"name": "' + "x" * 100_000 + '"}', "the row cannot be read: over 100 kB"),
            ('{"name": "' + "x" * 1_000_000 + '"}', "the row cannot be read: over 100 kB"),
        ],
    )
    def test_no_object(self, line: str, problem: str) -> None:
        """A line that cannot be an object is a problem of that row alone."""
        first, bad, last = rows(f"{lines(HUG)}{line}\n{lines(HUG)}")
        assert bad.problems[0].startswith(problem)
        assert (first.number, bad.number, last.number, last.same_as) == (1, 2, 3, 1)

    @pytest.mark.parametrize(
        ("cells", "problem"),
        [
            ("hug,a.jpg,b.jpg", "duration: input should be a valid integer"),
            (
                "hug,a.jpg|b.jpg,5,0,Ada,,x",
                "there is a cell without a column; one that contains ',' has to be in quotes",
            ),
            ("hug", "images: is missing"),
            (",a.jpg", "effect: is missing"),
            ("hug,|", "images: is missing"),
            ('hug,"[""a.jpg"""', "not valid JSON: "),
            ('hug,"a"b', "the row cannot be read: ',' expected after '\"'"),
            ("squish," + "x" * 100_000, "the row cannot be read: over 100 kB"),
        ],
    )
    def test_bad_cells(self, cells: str, problem: str) -> None:
        """Whatever is wrong with a row of a CSV, those around it are read."""
        first, bad, last = rows(f"{HEAD}squish,a.jpg\n{cells}\nsquish,b.jpg\n", "jobs.csv")
        assert bad.problems[0].startswith(problem)
        assert bad.job is None
        assert (first.number, bad.number, last.number) == (2, 3, 4)
        assert first.job
        assert last.job

    def test_name(self) -> None:
        """A name is one line that cannot drive a terminal, never a secret; without images there is the row's number."""
        data = "data:image/png;base64,AAAA"
        named = rows(
            lines(
                {**HUG, "name": "x" * 500},
                {**HUG, "name": "\u001b[2Jgone"},
                {**HUG, "name": "  "},
                {**HUG, "images": [data, data]},
                {**HUG, "images": ["https://me:pw@host", "zip://q/c.jpg::s3://b/z.zip"]},
                {**HUG, "images": 5},
                "hug",
            )
        )
        assert [row.name for row in named] == [
            "x" * 100,
            r"\x1b[2Jgone",
            "row 3",
            "row 4",
            "host + c",
            "row 6",
            "row 7",
        ]

    def test_default_model(self) -> None:
        """The row's own model goes first; one that does not exist is told once, before any row."""
        row, own = rows(lines(HUG, {**HUG, "model": PRO}), default_model=STANDARD)
        assert row.job
        assert row.job.model is None
        assert own.same_as is None
        with pytest.raises(BadInput, match="unknown model 'sora'"):
            rows(lines(HUG), default_model="sora")

    def test_same_as(self) -> None:
        """A row that asks for the same as an earlier one says which; spelled otherwise it is still the same."""
        twins = rows(
            lines(
                HUG,
                {**HUG, "name": "other", "duration": "5", "model": PRO},
                {**HUG, "images": ["memory://in/a.jpg", "./b.jpg"]},
                {**HUG, "images": ["b.jpg", "a.jpg"]},
                {**HUG, "take": 1},
                {**HUG, "duration": 10},
                {**HUG, "model": STANDARD},
                {**HUG, "duration": 7},
                {**HUG, "duration": 7},
                HUG,
            )
        )
        assert [row.same_as for row in twins] == [None, 1, 1, None, None, None, None, None, None, 1]


class TestFormat:
    """What a file of rows can look like."""

    @pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
    @pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
    def test_editors(self, bom: bytes, end: str) -> None:
        """A BOM and any line ends do no harm; rows are numbered as an editor shows them."""
        table = f"{end}Effect, IMAGES{end}{end}squish,ä.jpg{end},{end} {end}squish,b.jpg"
        objects = f"{end}# squished{end}{lines(HUG).strip()}{end} {end} #{end}{lines(HUG).strip()}"
        assert [row.number for row in rows(bom + table.encode(), "jobs.csv") if row.job] == [4, 7]
        assert [row.number for row in rows(bom + objects.encode()) if row.job] == [3, 6]

    @pytest.mark.parametrize("ending", [".csv", ".CSV", ".tsv", ".txt", ""])
    @pytest.mark.parametrize("mark", [",", ";", "\t"])
    def test_separators(self, mark: str, ending: str) -> None:
        """Columns are separated by whatever the spreadsheet's country uses; an unnamed, empty column is no harm."""
        table = ["", '"effect"', "images", ""], ["", "hug", f'"a{mark}.jpg | b.jpg"', ""]
        (row,) = rows("\n".join(mark.join(cells) for cells in table), f"jobs{ending}")
        assert row.job
        assert row.job.images == (f"memory://in/a{mark}.jpg", "memory://in/b.jpg")

    @pytest.mark.parametrize("name", ["jobs.jsonl", "jobs.NDJSON", "jobs.json", "jobs", "jobs.d/jobs.txt"])
    def test_json_by_name_or_content(self, name: str) -> None:
        """JSONL is known by its name, else by how it begins."""
        assert rows(lines(HUG), name)[0].job

    def test_line_ends_in_cells(self) -> None:
        """A cell may go over several lines; a row's number is that of its first."""
        table = f'{HEAD}squish,a.jpg,,,"x\n\n,y"\n\nsquish,"b.jpg\r\n",,,z\nsquish,c.jpg\n'
        assert [(row.number, row.name) for row in rows(table, "jobs.csv")] == [(2, "x ,y"), (6, "z"), (8, "c")]

    @pytest.mark.parametrize("count", [3, 200])
    def test_open_quote(self, count: int) -> None:
        """A quote that is never closed costs its own row: those below it are read, near the file's end and far."""
        below = "".join(f"squish,{number}.jpg\n" for number in range(count))
        table = f'{HEAD}squish,a.jpg,,,"Ada\n{below}'
        bad, *good = rows(table, "jobs.csv")
        assert (bad.number, bad.job) == (2, None)
        assert bad.problems[0].startswith("the row cannot be read: ")
        assert [row.number for row in good if row.job] == list(range(3, 3 + count))

    def test_other_encoding(self) -> None:
        """A cell that is not UTF-8 is a problem of its row."""
        good, bad = rows(f"{HEAD}squish,a.jpg\nsquish,é.jpg\n".encode("latin-1"), "jobs.csv")
        assert good.job
        assert (bad.number, bad.problems) == (3, ("images: is not in UTF-8",))
        for key in ("effect", "images", "name", "model"):
            _, bad = rows(f'{lines(HUG)}{{"{key}": "é"}}\n'.encode("latin-1"))
            assert f"{key}: is not in UTF-8" in bad.problems

    @pytest.mark.parametrize(
        ("content", "name", "line"),
        [
            ("", "jobs.csv", "the manifest has no rows"),
            ("\ufeff \n\n", "jobs.jsonl", "the manifest has no rows"),
            ("# nothing\n", "jobs.jsonl", "the manifest has no rows"),
            (HEAD + ",,,\n", "jobs.csv", "the manifest has no rows"),
            (
                "hug,a.jpg|b.jpg\n",
                "jobs.csv",
                "the first row has to name the columns: there is no column effect; there",
            ),
            (
                "effect,image\nhug,a\n",
                "jobs.csv",
                "the first row has to name the columns: there is no column images; un",
            ),
            ("effect,images,images\n", "jobs.csv", "the first row has to name the columns: the column images is there"),
            (
                "effect,images,tkae\n",
                "jobs.csv",
                "the first row has to name the columns: unknown column 'tkae': did you",
            ),
            (
                ",,,\n",
                "jobs.csv",
                "the first row has to name the columns: there is no column effect; there is no column",
            ),
            ("x," * 40_000 + "\n", "jobs.csv", "the first row has to name the columns: "),
            ("[\n  {}\n]", "jobs.json", "JSON over several lines; write one object a line (JSONL)"),
            ("{\n  }\n", "jobs.jsonl", "JSON over several lines; write one object a line (JSONL)"),
            (HEAD.encode("utf-16"), "jobs.csv", "not a text in UTF-8 (at line 1)"),
            (b"\n" + HEAD.encode("utf-16-le"), "jobs.csv", "not a text in UTF-8 (at line 2)"),
            (b"\xff\xd8\xff\xe0\n", "jobs.jpg", "not a text in UTF-8 (at line 1)"),
            ("x" * 150_000, "jobs.csv", "over 100 kB"),
            ("x" * 600_000, "jobs.csv", "over 100 kB in its first line; that is no manifest"),
        ],
    )
    def test_no_manifest(self, content: str | bytes, name: str, line: str) -> None:
        """What is no manifest is refused in one line, before any row."""
        assert refusal(content, name).startswith(line)


@pytest.fixture
def web() -> Iterator[str]:
    """A web server with manifests; of one, half is sent."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "busy" in self.path:
                return self.send_error(503)
            if "jobs.csv" not in self.path:
                return self.send_error(404)
            content = f"{HEAD}squish,a.jpg\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content) * (2 if "half" in self.path else 1)))
            self.end_headers()
            self.wfile.write(content)
            return None

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.02], daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class TestPlace:
    """Where manifests lie, and their images."""

    IMAGES = ("a.jpg", "./q/b.jpg", "../c.jpg", "/d.jpg", "~/e.jpg", "memory://f.jpg", "data:image/png;base64,A")

    def read(self, url: str, start: str = "memory://") -> tuple[str, ...]:
        """The images of a manifest that is written there."""
        with fsspec.open(url, "wb") as file:
            file.write(lines(*({"effect": "squish", "images": image} for image in self.IMAGES)).encode())
        found = tuple(row.job.images[0] for row in read_manifest(url, CATALOGUE) if row.job)
        assert found[3:] == self.IMAGES[3:]
        assert all(image.startswith(start) for image in found[:3])
        return found[:3]

    def test_local(self, tmp_path: Path) -> None:
        """A path, a URL or a name in the working directory: images beside it, as absolute paths."""
        Path("sub").mkdir()
        for url in (f"{tmp_path}/sub/m.jsonl", f"file://{tmp_path}/sub/m.jsonl", "sub/m.jsonl", "./sub/m.jsonl"):
            found = self.read(url, "/")
            assert [Path(image).resolve() for image in found] == [
                tmp_path / "sub/a.jpg",
                tmp_path / "sub/q/b.jpg",
                tmp_path / "c.jpg",
            ]
        assert self.read("m.jsonl", "/")[0] == f"{tmp_path}/a.jpg"

    @pytest.mark.parametrize("root", ["memory://", "memory:///"])
    def test_memory(self, root: str) -> None:
        """In another filesystem: images there."""
        found = (f"{root}in/deep/a.jpg", f"{root}in/deep/q/b.jpg", f"{root}in/c.jpg")
        assert self.read(f"{root}in/deep/m.jsonl") == found
        assert self.read("memory://m.jsonl")[0] == "memory://a.jpg"

    def test_s3(self, s3: str) -> None:
        """In a bucket: images there; a missing object and a missing bucket are one line each."""
        found = (f"{s3}/in/deep/a.jpg", f"{s3}/in/deep/q/b.jpg", f"{s3}/in/c.jpg")
        assert self.read(f"{s3}/in/deep/m.jsonl", "s3://") == found
        assert next(read_manifest(f"simplecache::{s3}/in/deep/m.jsonl", CATALOGUE)).job == Job(
            effect="squish", images=found[:1]
        )
        missing = "there is no such file or bucket"
        for path, reason in {
            f"{s3}/no.csv": missing,
            f"{s3}/in": "it is a folder",
            "s3://no-such-one/m": missing,
        }.items():
            with pytest.raises(BadInput, match=re.escape(f"{path}: the manifest cannot be read: {reason}")):
                list(read_manifest(path, CATALOGUE))

    def test_archive(self, tmp_path: Path) -> None:
        """In an archive: images in the same one."""
        with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
            archive.writestr("in/m.csv", f"{HEAD}squish,a.jpg\n")
            archive.writestr("m.csv", f"{HEAD}squish,a.jpg\n")
        for folder in ("", "in/"):
            (row,) = read_manifest(f"zip://{folder}m.csv::{tmp_path}/z.zip", CATALOGUE)
            assert row.job
            assert row.job.images == (f"zip://{folder}a.jpg::{tmp_path}/z.zip",)
            assert row.name == "a"

    def test_web(self, web: str) -> None:
        """On the web: images beside it, without its signature."""
        for path in ("/in/jobs.csv?sig=s3cret/x", "/in/?jobs.csv"):
            (row,) = read_manifest(web + path, CATALOGUE)
            assert row.job
            assert row.job.images == (f"{web}/in/a.jpg",)

    def test_data_uri(self) -> None:
        """A data URI lies nowhere: images as they are."""
        (row,) = read_manifest("data:text/csv,effect,images%0Asquish,q/a.jpg", CATALOGUE)
        assert row.job
        assert row.job.images == ("q/a.jpg",)

    def test_breaks_off(self, web: str) -> None:
        """A connection that breaks off is told after the rows that came, as something that may pass."""
        found = read_manifest(f"{web}/half/jobs.csv?sig=s3cret", CATALOGUE)
        with pytest.raises(BadInput, match=r"/half/jobs\.csv: the manifest cannot be read: ") as caught:
            list(found)
        assert caught.value.transient
        assert "s3cret" not in caught.value.reason

    def test_unreadable(self, web: str, tmp_path: Path) -> None:
        """What cannot be read is one line with the reason, without the signature."""
        for url, reason in {
            f"{tmp_path}/no.csv": "there is no such file or bucket",
            f"{tmp_path}": "it is a folder",
            "memory://no.csv?sig=s3cret": "there is no such file or bucket",
            "nosuch://x/m.csv": "Protocol not known: nosuch",
            f"{web}/no.csv?sig=s3cret": "there is no such file or bucket",
            f"{web}/busy?sig=s3cret": "the web server answers HTTP 503",
            "http://me:s3cret@127.0.0.1:9/m.csv?sig=s3cret": "Cannot connect to host",
            "": "it is a folder",
        }.items():
            with pytest.raises(BadInput) as caught:
                list(read_manifest(url, CATALOGUE))
            (line,) = caught.value.problems
            assert f": the manifest cannot be read: {reason}" in line
            assert "s3cret" not in line
            assert "\n" not in line


class TestSize:
    """What a large manifest costs."""

    def test_never_held(self, tmp_path: Path) -> None:
        """A file of 20 MB is read in a small part of that."""
        path, many = tmp_path / "jobs.jsonl", 2000
        with path.open("w") as file:
            file.writelines(lines({**HUG, "take": take, "name": "x" * 10_000}) for take in range(many))
        tracemalloc.start()
        try:
            assert sum(row.job is not None for row in read_manifest(str(path), CATALOGUE)) == many
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 4_000_000

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells a process's peak memory there")
    def test_200_000_rows(self, tmp_path: Path) -> None:
        """A process that reads 200,000 rows, 44 MB, grows by no more than the digests that find equal rows."""
        with (tmp_path / "jobs.csv").open("w") as file:
            file.write(HEAD)
            file.writelines(f"squish,{number:0200}.jpg,,,{number}\n" for number in range(200_000))
        program = """
            import pathlib, re
            from tasks.effects import load_catalogue
            from tasks.manifest import read_manifest
            def peak():
                return int(re.search(r"VmHWM:\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
            catalogue, before = load_catalogue(), peak()
            print(sum(row.job is not None for row in read_manifest("jobs.csv", catalogue)), peak() - before)
        """
        home = {"PYTHONPATH": str(Path(manifest.__file__).parents[1])}
        command = [sys.executable, "-c", textwrap.dedent(program)]
        done = subprocess.run(command, cwd=tmp_path, env=home, capture_output=True, text=True, check=True)
        jobs, grown_kb = map(int, done.stdout.split())
        assert jobs == 200_000
        assert grown_kb < 200_000 * 0.2


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["hug", "squish", "a.jpg", PRO]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=5,
)
SAID = st.dictionaries(st.sampled_from(manifest.KEYS) | st.text(max_size=3), VALUES, max_size=6)
CELL = st.text(st.characters(codec="utf-8"), max_size=20)


class TestAnything:
    """Whatever a file holds."""

    @given(
        st.binary(max_size=300) | st.binary(max_size=300).map(lambda tail: HEAD.encode() + tail),
        st.sampled_from(["m.csv", "m.jsonl", "m"]),
    )
    def test_bytes(self, content: bytes, name: str) -> None:
        """Any bytes end in rows, or in one line."""
        try:
            found = rows(content, name)
        except BadInput as error:
            assert len(error.problems) == 1  # noqa: PT017 - either is right
        else:
            assert found
            assert all((row.job is None) == bool(row.problems) for row in found)

    @given(st.lists(SAID, min_size=1, max_size=4))
    def test_objects(self, said: list[dict[str, object]]) -> None:
        """Any objects end in one row each, in order, with a job or with problems; each line can be shown."""
        found = rows(lines(*said))
        assert [row.number for row in found] == list(range(1, len(said) + 1))
        for row in found:
            assert (row.job is None) == bool(row.problems)
            assert row.name
            assert row.name.isprintable()
            assert all("\n" not in problem for problem in row.problems)

    @given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=5), st.sampled_from(",;\t"), st.integers(1, 50))
    @settings(deadline=None)
    def test_csv_round_trip(self, cells: list[tuple[str, str]], mark: str, chunk: int) -> None:
        """What Python's csv module writes is read as it was, wherever the file is cut into pieces."""
        text = io.StringIO(newline="")
        writer = csv.writer(text, delimiter=mark, quoting=csv.QUOTE_ALL)
        writer.writerow(["name", "images", "effect"])
        writer.writerows([name, json.dumps([image or "x"]), "squish"] for name, image in cells)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(manifest, "CHUNK_BYTES", chunk)
            found = rows(text.getvalue(), "m.csv")
        for row, (name, image) in zip(found, cells, strict=True):
            assert row.job
            assert row.job.images[0].endswith(image or "x")
            wanted = " ".join(name.split())
            assert row.name == (wanted if wanted.isprintable() else repr(wanted)[1:-1])[:100] or not wanted

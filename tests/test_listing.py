"""A listing with details: the same on a disk, in memory and over the S3 protocol."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import boto3
import fsspec
import pytest

from tasks.listing import Found, elsewhere, on_disk
from tasks.storage import filesystem_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    List = Callable[..., list[Found]]

FILES = ("hug/a b/1.jpg", "hug/a b/2 #1 100% [ü]?.jpg", "hug/x/deep/er/3.jpg", "squish/a.jpg", "top.jpg")
PASSED_OVER = (
    *(".hidden", "hug/.DS_Store", "hug/._1.jpg", "hug/.trash/1.jpg", "__MACOSX/hug/1.jpg", "hug/Thumbs.db"),
    *("squish/b.jpg.part", "squish/b.jpg.crdownload", "squish/B.TMP", "squish/desktop.ini", "@eaDir/1.jpg"),
)


@pytest.fixture(params=["file", "folders", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder of each kind; a disk in the way of all others stands for those that have folders, as SFTP."""
    if request.param in {"file", "folders"}:
        (tmp_path / "in").mkdir()
        return str(tmp_path / "in")
    return f"{request.getfixturevalue('s3')}/in" if request.param == "s3" else f"memory://{tmp_path.name}/in"


@pytest.fixture
def put(root: str) -> Callable[[str, bytes], None]:
    """Writes a file below the root."""

    def put(path: str, data: bytes) -> None:
        filesystem, at = filesystem_of(f"{root}/{path}")
        filesystem.makedirs(at.rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(at, data)

    return put


@pytest.fixture
def listed(root: str, request: pytest.FixtureRequest) -> List:
    """Lists a folder below the root, by path."""

    def listed(folder: str = "", unlisted: dict[str, str] | None = None) -> list[Found]:
        unlisted = {} if unlisted is None else unlisted
        filesystem, at = filesystem_of(root, use_listings_cache=False)
        if "[file]" in request.node.name:
            return sorted(on_disk(at, folder, unlisted))
        return sorted(elsewhere(filesystem, at, folder, unlisted, atomic=root.startswith("s3://")))

    return listed


def test_every_file_is_listed_but_those_that_are_nobodys(put: Callable[[str, bytes], None], listed: List) -> None:
    """Hidden ones, what systems leave behind, and what is still written under another name."""
    for path in (*FILES, *PASSED_OVER):
        put(path, b"12345")
    assert [file.path for file in listed()] == sorted(FILES)
    assert {file.size for file in listed()} == {5}
    assert not any(file.fault for file in listed())


def test_a_folder_or_a_file_can_be_listed_alone(put: Callable[[str, bytes], None], listed: List) -> None:
    """With the same details as in the whole: else what is settled would be looked at again."""
    for path in (*FILES, *PASSED_OVER, "squish/a.jpg.jpg", "hug/a bc/1.jpg"):
        put(path, b"12345")
    whole = {file.path: file for file in listed()}
    assert listed("hug/a b") == [whole["hug/a b/1.jpg"], whole["hug/a b/2 #1 100% [ü]?.jpg"]]
    assert listed("squish/a.jpg") == [whole["squish/a.jpg"]]
    assert listed("squish/b.jpg.part") == []
    assert listed("hug/nobody") == []


def test_another_content_is_another_version(put: Callable[[str, bytes], None], listed: List, root: str) -> None:
    """Also where its length is the same."""
    put("squish/a.jpg", b"12345")
    [before] = listed()
    put("squish/a.jpg", b"54321")
    if root.startswith("/"):
        os.utime(f"{root}/squish/a.jpg", (1, 1))
    [after] = listed()
    assert before.size == after.size
    assert before.version != after.version


def test_where_a_file_is_seen_before_it_is_whole_its_time_is_told(
    put: Callable[[str, bytes], None], listed: List, root: str
) -> None:
    """An object store shows whole objects only."""
    put("squish/a.jpg", b"12345")
    [file] = listed()
    assert (file.modified is None) is root.startswith("s3://")


def test_the_same_object_uploaded_again_is_the_same_version(s3: str) -> None:
    """Its ETag says so: nothing is looked at anew because somebody synchronised a folder once more."""
    filesystem, at = filesystem_of(f"{s3}/in", use_listings_cache=False)
    versions = set()
    for _ in range(2):
        fsspec.filesystem("s3").pipe_file(f"{s3}/in/a.jpg", b"12345")
        versions |= {file.version for file in elsewhere(filesystem, at, "", {}, atomic=True)}
    assert len(versions) == 1


def test_placeholders_of_folders_are_no_files(s3: str, s3_endpoint: str) -> None:
    """As the consoles of object stores make them; a folder without a name is told."""
    bucket = s3.removeprefix("s3://")
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    for key in ("in/", "in/hug/", "in/hug/anna/", "in/squish//a.jpg"):
        client.put_object(Bucket=bucket, Key=key, Body=b"" if key.endswith("/") else b"1")
    filesystem, at = filesystem_of(f"{s3}/in", use_listings_cache=False)
    assert [file.path for file in elsewhere(filesystem, at, "", {}, atomic=True)] == ["squish//a.jpg"]


def test_links_are_the_files_that_they_lead_to_and_nothing_else_is_opened(tmp_path: Path) -> None:
    """A link to a folder could lead round and round, a pipe would never end: they are told, not followed."""
    (tmp_path / "photo.jpg").write_bytes(b"12345")
    os.utime(tmp_path / "photo.jpg", (1, 1))
    inside = tmp_path / "in" / "squish"
    inside.mkdir(parents=True)
    (inside / "a.jpg").symlink_to(tmp_path / "photo.jpg")
    (inside / "b").symlink_to(tmp_path)
    (inside / "c.jpg").symlink_to(tmp_path / "gone.jpg")
    os.mkfifo(inside / "d.jpg")
    found = {file.path.removeprefix("squish/"): file for file in on_disk(str(tmp_path / "in"), "", {})}
    assert found["a.jpg"][1:4] == (5, "5-1000000000", 1.0)
    assert found["b"].fault == found["d.jpg"].fault == "it is a link to a folder, or no file at all"
    assert found["c.jpg"].fault == "there is no such file or bucket"


@pytest.mark.parametrize("as_disk", [True, False])
def test_a_folder_that_cannot_be_listed_is_told(as_disk: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the others are listed all the same; fsspec alone would pass over it without a word."""
    filesystem, at = filesystem_of(str(tmp_path / "in"), use_listings_cache=False)
    for path in ("hug/a/1.jpg", "squish/a.jpg"):
        (tmp_path / "in" / path).parent.mkdir(parents=True)
        (tmp_path / "in" / path).write_bytes(b"1")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if path.endswith("hug/a"):
            raise PermissionError(13, "no", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    unlisted: dict[str, str] = {}
    listing = on_disk(at, "", unlisted) if as_disk else elsewhere(filesystem, at, "", unlisted, atomic=False)
    assert [file.path for file in listing] == ["squish/a.jpg"]
    assert unlisted == {"hug/a": "access is not allowed"}


def test_what_goes_away_during_the_listing_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file nor a folder; the whole inbox is another matter."""
    (tmp_path / "in" / "hug" / "a").mkdir(parents=True)
    (tmp_path / "in" / "photo.jpg").write_bytes(b"1")
    scandir = os.scandir

    def vanish(path: str) -> object:
        entries = scandir(path)
        (tmp_path / "in" / "photo.jpg").unlink(missing_ok=True)
        if str(path).endswith("hug"):
            (tmp_path / "in" / "hug" / "a").rmdir()
        return entries

    monkeypatch.setattr(os, "scandir", vanish)
    unlisted: dict[str, str] = {}
    assert list(on_disk(str(tmp_path / "in"), "", unlisted)) == []
    assert unlisted == {}
    assert list(on_disk(str(tmp_path / "nowhere"), "", unlisted)) == []
    assert unlisted == {"": "there is no such file or bucket"}

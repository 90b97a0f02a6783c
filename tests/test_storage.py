"""The storage that the ledger stands on, on a local disk, in memory and over the S3 protocol."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from tasks.errors import StorageError
from tasks.storage import Storage

if TYPE_CHECKING:
    from pathlib import Path

RACERS = 32


@pytest.fixture(params=["file", "memory", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder of each kind that does not exist yet."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/deep/er"
    return f"memory://{tmp_path.name}/deep" if request.param == "memory" else str(tmp_path / "deep" / "er")


async def test_a_file_is_written_read_listed_measured_and_deleted(root: str) -> None:
    """Everything that the ledger does works the same everywhere."""
    storage = Storage(root)
    assert await storage.read("a/b.json") is None
    assert await storage.size("a/b.json") is None
    assert await storage.list("a") == ()
    await storage.write("a/b.json", b"one")
    await storage.write("a/b.json", b"three")
    await storage.write("a/c/d.json", b"2")
    assert await storage.read("a/b.json") == b"three"
    assert await storage.size("a/b.json") == 5
    assert await storage.list("a") == ("a/b.json", "a/c/d.json")
    await storage.delete("a/b.json")
    await storage.delete("a/b.json")
    assert await storage.list("a") == ("a/c/d.json",)


async def test_exactly_one_of_many_racing_threads_creates_a_file(root: str) -> None:
    """The right to pay has one holder, whose bytes are what is stored; ten races, 32 racers each."""
    for race in range(10):
        gate = threading.Barrier(RACERS)

        def create(racer: int, race: int = race, gate: threading.Barrier = gate) -> bool:
            storage = Storage(root)
            gate.wait()
            return asyncio.run(storage.create(f"race/{race}", str(racer).encode()))

        with ThreadPoolExecutor(RACERS) as pool:
            won = list(pool.map(create, range(RACERS)))
        assert sum(won) == 1
        assert await Storage(root).read(f"race/{race}") == str(won.index(True)).encode()


async def test_an_upload_has_the_bytes_of_the_local_file(root: str, tmp_path: Path) -> None:
    """A file is stored whole, and replaces what was there."""
    local = tmp_path / "film.mp4"
    local.write_bytes(b"x" * 3_000_000)
    storage = Storage(root)
    await storage.write("film.mp4", b"old")
    await storage.upload("film.mp4", local)
    assert await storage.size("film.mp4") == 3_000_000
    assert await storage.list("") == ("film.mp4",)


async def test_a_write_that_breaks_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    """A local file is replaced as a whole or not at all."""
    storage = Storage(str(tmp_path))
    await storage.write("a.json", b"old")
    with pytest.raises(StorageError):
        await storage.upload("a.json", tmp_path / "missing")
    assert await storage.read("a.json") == b"old"
    assert await storage.list("") == ("a.json",)


async def test_a_signed_url_can_be_fetched_by_anyone(s3: str) -> None:
    """S3 signs; a local disk does not."""
    storage = Storage(s3)
    await storage.write("a.jpg", b"picture")
    url = await storage.sign("a.jpg")
    assert url is not None
    assert (await asyncio.to_thread(httpx.get, url)).content == b"picture"
    assert await Storage("local").sign("a.jpg") is None


@pytest.mark.usefixtures("s3")
async def test_a_bucket_that_does_not_exist_is_a_lasting_error_in_one_line() -> None:
    """The line names the place and what is wrong with it."""
    with pytest.raises(StorageError) as caught:
        await Storage("s3://no-such-bucket-here/x").write("a.json", b"")
    assert caught.value.lasting
    assert "s3://no-such-bucket-here/x/a.json" in caught.value.reason
    assert "\n" not in caught.value.reason


async def test_a_file_in_the_way_of_a_folder_is_a_lasting_error(tmp_path: Path) -> None:
    """A target below a file can never be written."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError) as caught:
        await Storage(str(tmp_path / "file" / "target")).create("a.json", b"")
    assert caught.value.lasting


def test_an_unknown_kind_of_location_is_named() -> None:
    """A typing mistake in a URL is told at once."""
    with pytest.raises(StorageError, match="s4"):
        Storage("s4://bucket")

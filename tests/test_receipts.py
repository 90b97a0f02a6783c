"""Receipts: what is noted of an upload is found again, however many there are and whoever bundles them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest

from tasks import receipts as module
from tasks.errors import StorageError
from tasks.jobs import Outcome
from tasks.listing import Found
from tasks.receipts import SETTLED, Receipt, Receipts
from tasks.storage import Storage
from tasks.uploads import Upload

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["file", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    """A target of each kind."""
    return Storage(request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path / "target"))


@pytest.fixture(autouse=True)
def small_bundles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight receipts are many here."""
    monkeypatch.setattr(module, "BUNDLE_AT", 8)


def _receipt(number: int) -> Receipt:
    name = f"squish/{number}.jpg"
    upload = Upload(name, "squish", (name,), key=f"{number:032x}", files=(Found(name, 5, "5-1"),))
    return Receipt.of(upload, Outcome(state="rejected", effect="squish", reason='it says "key":"x"\nand more'))


def _key(number: int) -> str:
    return _receipt(number).key


async def _files(storage: Storage) -> tuple[list[str], list[str]]:
    paths = await storage.list("_inbox")
    return [p for p in paths if not p.startswith(SETTLED)], [p for p in paths if p.startswith(SETTLED)]


async def test_what_is_kept_is_settled_for_everyone(storage: Storage) -> None:
    """A file a receipt, that a person can read."""
    assert await Receipts(storage).settled() == set()
    await Receipts(storage).keep(_receipt(1))
    assert await Receipts(storage).settled() == {_key(1)}
    kept = Receipt.model_validate_json(await storage.read(f"_inbox/{_key(1)}.json") or b"")
    assert (kept.name, kept.state, kept.files) == ("squish/1.jpg", "rejected", (("squish/1.jpg", "5-1"),))


async def test_many_become_few_files_and_none_is_lost(storage: Storage) -> None:
    """A sweep lists what is left: never more single receipts than some, and bundles that grow like a binary count."""
    receipts = Receipts(storage)
    for number in range(100):
        await receipts.keep(_receipt(number))
    singles, bundles = await _files(storage)
    assert len(singles) == 100 % 8
    assert [int(path.split("/")[-1].split("-")[0]) for path in bundles] == [32, 64]
    assert await Receipts(storage).settled() == {_key(number) for number in range(100)}
    lines = [line for path in bundles for line in (await storage.read(path) or b"").splitlines()]
    assert {Receipt.model_validate_json(line).name for line in lines} == {f"squish/{n}.jpg" for n in range(96)}


async def test_those_of_others_are_bundled_too(storage: Storage) -> None:
    """A process that died left them."""
    for number in range(7):
        await Receipts(storage).keep(_receipt(number))
    heir = Receipts(storage)
    await heir.settled()
    await heir.keep(_receipt(7))
    singles, bundles = await _files(storage)
    assert (len(singles), len(bundles)) == (0, 1)
    assert await Receipts(storage).settled() == {_key(number) for number in range(8)}


async def test_a_sweep_that_keeps_nothing_bundles_what_a_crash_left(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every further listing would pay for it."""
    with monkeypatch.context() as patch:
        patch.setattr(module, "BUNDLE_AT", 1000)
        for number in range(20):
            await Receipts(storage).keep(_receipt(number))
    receipts = Receipts(storage)
    assert len(await receipts.settled()) == 20
    await receipts.bundle()
    assert await _files(storage) == ([], [path for path in await storage.list(SETTLED) if "/00000020-" in path])


async def test_two_that_bundle_at_once_lose_nothing(storage: Storage) -> None:
    """Each removes only what it has written into a bundle before."""
    first, second = Receipts(storage), Receipts(storage)
    for number in range(60):
        await asyncio.gather(first.keep(_receipt(2 * number)), second.keep(_receipt(2 * number + 1)))
    assert await Receipts(storage).settled() == {_key(number) for number in range(120)}


async def test_a_crash_between_the_bundle_and_the_removal_costs_nothing(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same receipt twice says the same; the next bundle takes both, and never removes itself."""
    receipts = Receipts(storage)
    for number in range(7):
        await receipts.keep(_receipt(number))

    async def crash(_self: Storage, path: str) -> None:
        raise StorageError(f"cannot delete {path}")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "delete", crash)
        await receipts.keep(_receipt(7))
    assert [len(files) for files in await _files(storage)] == [8, 1]
    heir = Receipts(storage)
    assert await heir.settled() == {_key(number) for number in range(8)}
    await heir.bundle()
    assert [len(files) for files in await _files(storage)] == [0, 1]
    assert await Receipts(storage).settled() == {_key(number) for number in range(8)}


async def test_bundles_that_are_bundled_anew_behind_a_look_are_found(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the listing and the reading of a bundle another process has made a larger one of it."""
    other = Receipts(storage)
    for number in range(15):
        await other.keep(_receipt(number))
    read, races = Storage.read, iter([True])

    async def read_too_late(self: Storage, path: str) -> bytes | None:
        if path.startswith(SETTLED) and next(races, False):
            await other.keep(_receipt(15))
        return await read(self, path)

    monkeypatch.setattr(Storage, "read", read_too_late)
    assert await Receipts(storage).settled() == {_key(number) for number in range(16)}
    assert [len(files) for files in await _files(storage)] == [0, 1]


async def test_what_cannot_be_read_stays_where_it_is(storage: Storage) -> None:
    """It is not bundled, and still says that its upload was looked at; other files are nobody's business."""
    broken, foreign = f"_inbox/{99:032x}.json", "_inbox/notes.txt"
    await storage.write(broken, b"{")
    await storage.write(foreign, b"hello")
    receipts = Receipts(storage)
    for number in range(8):
        await receipts.keep(_receipt(number))
    assert (await _files(storage))[0] == [broken, foreign]
    assert await Receipts(storage).settled() == {_key(number) for number in (*range(8), 99)}


async def test_a_target_that_cannot_be_written_is_told_and_stops_nothing(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The video is there all the same: the next sweep finds it so."""

    async def refuse(_self: Storage, path: str, _data: bytes) -> None:
        raise StorageError(f"cannot write {path}: the disk is full")

    monkeypatch.setattr(Storage, "write", refuse)
    with caplog.at_level(logging.WARNING, "effects"):
        await Receipts(storage).keep(_receipt(1))
    assert "what became of squish/1.jpg could not be noted" in caplog.text
    assert "the disk is full" in caplog.text

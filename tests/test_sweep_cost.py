"""What an idle sweep costs: one listing of the inbox, and next to nothing for what was done before."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from tasks.effects import load_catalogue
from tasks.inbox import Inbox, Look
from tasks.jobs import Outcome
from tasks.receipts import Receipt, Receipts, bundle_of
from tasks.settings import load_settings
from tasks.storage import Storage
from tests.benchmarks import sweep as benchmark
from tests.inboxes import Uploads

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def _look(uploads: Uploads) -> Look:
    async def look() -> Look:
        inbox = Inbox(load_settings(), load_catalogue())
        return await inbox.look(await Receipts(Storage(uploads.target)).settled())

    return asyncio.run(look())


def _settle(uploads: Uploads) -> None:
    receipts = [Receipt.of(upload, Outcome(state="completed", effect="squish")) for upload in _look(uploads).ready]
    bundle = bundle_of({receipt.key: receipt.line for receipt in receipts})
    asyncio.run(Storage(uploads.target).write(*bundle))


def test_over_s3_it_is_two_listings_and_a_bundle(
    s3: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However many uploads there are: no request for any of them."""
    uploads = Uploads(s3, monkeypatch)
    for number in range(30):
        uploads.put(f"squish/{number}.jpg", b"photo")
    _settle(uploads)
    with caplog.at_level(logging.INFO, "werkzeug"):
        caplog.clear()
        assert _look(uploads) == Look()
    requests = [record.getMessage() for record in caplog.records if record.name == "werkzeug"]
    assert sum("list-type=2&prefix=in/" in request for request in requests) == 1
    assert sum("list-type=2&prefix=out/_inbox/" in request for request in requests) == 1
    assert sum("_inbox/settled/" in request and "GET" in request for request in requests) == 1
    assert len(requests) <= 4  # s3fs may ask for a bundle's size before it reads it


def test_on_a_disk_every_folder_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And no photo is opened."""
    uploads = Uploads(str(tmp_path / "store"), monkeypatch)
    for number in range(10):
        uploads.put(f"squish/{number}/photo.jpg", b"photo")
    _settle(uploads)
    scandir, read = os.scandir, list[str]()

    def count(path: str) -> object:
        read.append(str(path).removeprefix(uploads.inbox).strip("/"))
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", count)
        assert _look(uploads) == Look()
    inside = [path for path in read if not path.startswith(uploads.target.strip("/"))]
    assert sorted(inside) == sorted(["", "squish", *(f"squish/{number}" for number in range(10))])


def test_the_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m tests.benchmarks.sweep` gives a row for each size and layout; figures are for who asks for them."""
    assert benchmark.main(["--rounds", "1", "--disk", "300", "--s3"]) == 0
    told = capsys.readouterr().out
    assert [line.split()[:3] for line in told.splitlines()[1:3]] == [
        ["disk,", "flat", "300"],
        ["disk,", "pairs", "300"],
    ]

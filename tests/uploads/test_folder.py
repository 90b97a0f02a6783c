"""A watched folder, with real files put into it in the ways that people and programs do."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from deployments.uploads import listener as listener_module
from deployments.uploads.folder import Folder
from deployments.uploads.listener import listen
from tasks.errors import BadInput
from tests.uploads.desk import Server, listening, until

if TYPE_CHECKING:
    from pathlib import Path


async def test_photos_put_one_after_the_other_are_one_event(tmp_path: Path) -> None:
    """The folder is made where there is none yet."""
    server, folder, inbox = Server(), Folder(), tmp_path / "deep" / "inbox"
    async with listening(str(inbox), server, folder, quiet_s=1):
        await folder.watching.wait()
        job = inbox / "hug" / "anna and ben"
        job.mkdir(parents=True)
        (job / "1.jpg").write_bytes(b"left")
        await asyncio.sleep(0.2)
        (job / "2.jpg").write_bytes(b"right")
        await until(lambda: bool(server.events))
    [event] = server.events
    assert event["payload"] == {
        "inbox": str(inbox),
        "folders": ["hug/anna and ben"],
        "files": 2,
        "sources": ["folder"],
    }


async def test_a_burst_of_five_hundred_uploads_is_a_few_events_and_none_is_missed(tmp_path: Path) -> None:
    """Folders that come with their files in them: the system tells of the folder, and perhaps not of the files."""
    server, folder, inbox = Server(), Folder(), tmp_path / "inbox"
    async with listening(str(inbox), server, folder, quiet_s=1) as listener:
        await folder.watching.wait()
        for number in range(500):
            job = inbox / "hug" / f"{number:03}"
            job.mkdir(parents=True)
            for side in "lr":
                (job / f"{side}.jpg").write_bytes(b"photo")
        await until(lambda: listener.counters.arrivals == 1000 and not listener.pending)
    assert sorted(set(server.folders)) == [f"hug/{number:03}" for number in range(500)]
    assert len(server.events) <= 15


async def test_files_and_folders_that_are_moved_in_are_noticed(tmp_path: Path) -> None:
    """A careful program writes elsewhere, and moves what is whole; also onto what is there."""
    server, folder, inbox, outside = Server(), Folder(), tmp_path / "inbox", tmp_path / "outside"
    (inbox / "squish").mkdir(parents=True)
    (outside / "anna" / "deeper").mkdir(parents=True)
    (outside / "anna" / "1.jpg").write_bytes(b"left")
    (outside / "anna" / "deeper" / "2.jpg").write_bytes(b"right")
    (outside / "cat.jpg").write_bytes(b"cat")
    (inbox / "squish" / "dog.jpg").write_bytes(b"dog")
    (outside / "dog.jpg").write_bytes(b"DOG")
    async with listening(str(inbox), server, folder, quiet_s=0.5):
        await folder.watching.wait()
        (outside / "cat.jpg").rename(inbox / "squish" / "cat.jpg")
        (outside / "dog.jpg").replace(inbox / "squish" / "dog.jpg")
        (outside / "anna").rename(inbox / "anna")
        (inbox / "anna").rename(inbox / "squish" / "anna")
        await until(lambda: len(set(server.folders)) >= 3)
    assert set(server.folders) >= {"squish/cat.jpg", "squish/dog.jpg", "squish/anna"}


async def test_an_inbox_may_be_a_link(tmp_path: Path) -> None:
    """Or be named by a detour; when the link is set to another folder, that one is watched."""
    server, folder = Server(), Folder()
    for name in ("one", "two"):
        (tmp_path / name / "squish").mkdir(parents=True)
    link = tmp_path / "inbox"
    link.symlink_to("one")
    async with listening(f"{tmp_path}/one/../inbox", server, folder):
        await folder.watching.wait()
        (tmp_path / "one" / "squish" / "cat.jpg").write_bytes(b"cat")
        await until(lambda: server.folders == ["squish/cat.jpg"])
        link.unlink()
        link.symlink_to("two")
        (tmp_path / "two" / "squish" / "dog.jpg").write_bytes(b"dog")
        await until(lambda: server.folders == ["squish/cat.jpg", "squish/dog.jpg"])


async def test_what_is_nobody_s_photo_wakes_nobody(tmp_path: Path) -> None:
    """Half-written files, litter, what is removed or was there; the whole file then does."""
    server, folder, inbox = Server(), Folder(), tmp_path / "inbox"
    squish = inbox / "squish"
    squish.mkdir(parents=True)
    for name in ("old.jpg", "older.jpg"):
        (squish / name).write_bytes(b"old")
    async with listening(str(inbox), server, folder) as listener:
        await folder.watching.wait()
        (squish / "old.jpg").rename(tmp_path / "old.jpg")
        squish.chmod(0o700)
        inbox.chmod(0o700)
        (squish / ".DS_Store").write_bytes(b"litter")
        (squish / "cat.jpg.part").write_bytes(b"half")
        await until(lambda: listener.counters.ignored >= 2)
        (squish / "cat.jpg.part").rename(squish / "cat.jpg")
        await until(lambda: bool(server.events))
    assert server.folders == ["squish/cat.jpg"]


async def test_a_name_that_is_no_text_does_not_stop_the_watch(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told of in the log; what was put beside it is noticed, before and after."""
    server, folder, squish = Server(), Folder(), tmp_path / "squish"
    squish.mkdir()
    async with listening(str(tmp_path), server, folder):
        await folder.watching.wait()
        for _ in range(2):
            (squish / "cat.jpg").write_bytes(b"cat")
            with open(os.fsencode(squish) + b"/\xff.jpg", "wb") as file:  # noqa: ASYNC230, PTH123 - it is no Path
                file.write(b"photo")
            await until(lambda: "squish/cat.jpg" in server.folders)
            server.events.clear()
        (squish / "dog.jpg").write_bytes(b"dog")
        await until(lambda: "squish/dog.jpg" in server.folders)
    assert any("UTF-8" in record.getMessage() for record in caplog.records)


async def test_what_arrives_while_nobody_accepts_events_is_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder has nobody to send again: the listener keeps it."""
    monkeypatch.setattr(listener_module, "FIRST_PAUSE_S", 0.05)
    server, folder = Server(), Folder()
    server.away = True
    async with listening(str(tmp_path), server, folder):
        await folder.watching.wait()
        (tmp_path / "squish").mkdir()
        (tmp_path / "squish" / "cat.jpg").write_bytes(b"cat")
        await until(lambda: len(server.tries) >= 3)
        (tmp_path / "squish" / "dog.jpg").write_bytes(b"dog")
        server.away = False
        await until(lambda: len(server.folders) >= 2)
    assert server.folders == ["squish/cat.jpg", "squish/dog.jpg"]


async def test_a_folder_that_was_removed_is_made_and_watched_again(tmp_path: Path) -> None:
    """With what was put there before it could be watched."""
    server, folder, inbox = Server(), Folder(), tmp_path / "inbox"
    async with listening(str(inbox), server, folder):
        await folder.watching.wait()
        shutil.rmtree(inbox)
        await until(inbox.exists)
        (inbox / "squish").mkdir()
        (inbox / "squish" / "cat.jpg").write_bytes(b"cat")
        await until(lambda: server.folders == ["squish/cat.jpg"])
        inbox.rename(tmp_path / "elsewhere")
        (inbox / "squish").mkdir(parents=True)
        (inbox / "squish" / "dog.jpg").write_bytes(b"dog")
        await until(lambda: "squish/dog.jpg" in server.folders)


@pytest.mark.parametrize("inbox", ["s3://photos/in", "{}/file", "{}/file/inbox"])
async def test_what_cannot_be_watched_is_told_in_one_line(inbox: str, tmp_path: Path, prefect_api: str) -> None:
    """A bucket, a file, a place below a file."""
    assert prefect_api
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="watched"):
        await listen(inbox.format(tmp_path), [Folder()])


async def test_listening_ends_when_it_is_cancelled(tmp_path: Path, prefect_api: str) -> None:
    """And lets go of the folder: it can be listened to again in the same process."""
    assert prefect_api
    for _ in range(2):
        folder = Folder()
        task = asyncio.create_task(listen(str(tmp_path), [folder]))
        await folder.watching.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)

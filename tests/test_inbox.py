"""The inbox: what was uploaded becomes videos, once; every upload ends in exactly one named state."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tasks.inbox import Inbox
from tasks.jobs import Record
from tasks.storage import filesystem_of
from tests.conftest import CHELSEA, COLLINS, HOPPER
from tests.inboxes import Uploads, reason, states, sweep, sweep_state

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from deployments.sandbox.server import Sandbox
    from tasks.inbox import Look

pytestmark = pytest.mark.usefixtures("prefect_api")


@pytest.fixture(params=["file", "s3"])
def uploads(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    """An empty inbox on a disk, and one over the S3 protocol."""
    store = request.getfixturevalue("s3") if request.param == "s3" else str(tmp_path / "store")
    return Uploads(store, monkeypatch)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    """An empty inbox on a disk."""
    return Uploads(str(tmp_path / "store"), monkeypatch)


async def test_uploads_become_videos_once(uploads: Uploads, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders with pairs, single files, names that are hard to quote; a second sweep fetches and sends nothing."""
    uploads.pair("hug/anna and ben")
    uploads.put("squish/cat #1 100% [ü]?.jpg")
    uploads.put("expansion/cat/photo.jpg")
    uploads.put("squish/.DS_Store", b"x")
    first = await sweep()
    assert states(first) == {
        "expansion/cat": "completed",
        "hug/anna and ben": "completed",
        "squish/cat #1 100% [ü]?.jpg": "completed",
    }
    assert first.cost_usd == pytest.approx(3 * 0.515)
    assert sandbox.counters.billed == uploads.videos() == 3
    filesystem, at = filesystem_of(str(next(row.metadata for row in first.rows if row.effect == "hug")))
    record = Record.model_validate_json(filesystem.cat_file(at))
    assert [source.url for source in record.sources] == [f"{uploads.inbox}/hug/anna and ben/{n}.jpg" for n in (1, 2)]
    receipts = uploads.receipts()
    assert {name: receipt["job_id"] for name, receipt in receipts.items()} == {
        row.name: row.job_id for row in first.rows
    }

    monkeypatch.setattr("flows.generate.fetch_images", None)
    assert (await sweep()).rows == ()
    assert sandbox.counters.submissions == 3


async def test_a_pair_with_one_image_waits_until_the_other_comes(disk: Uploads, sandbox: Sandbox) -> None:
    """Waiting is nobody's fault, and nothing that is noted."""
    disk.put("hug/anna/1.jpg", COLLINS)
    state = await sweep_state()
    assert (state.name, state.message) == ("Completed", "1 waiting")
    first = await sweep()
    assert states(first) == {"hug/anna": "waiting"}
    assert "1 of 2 images so far" in reason(first, "hug/anna")
    disk.put("hug/anna/2.jpg", HOPPER)
    assert states(await sweep()) == {"hug/anna": "completed"}
    assert sandbox.counters.billed == 1


async def test_a_bad_upload_is_rejected_once_and_looked_at_again_when_it_changes(
    uploads: Uploads, sandbox: Sandbox
) -> None:
    """Whether the listing shows it or only the photo itself; nothing is sent for it."""
    uploads.put("squish/a.jpg", b"hello")
    uploads.put("squish/b.jpg", CHELSEA)
    uploads.put("hugg/x/1.jpg", COLLINS)
    uploads.put("hug/c.jpg", COLLINS)
    uploads.put("photo.jpg", COLLINS)
    first = await sweep()
    assert states(first) == {
        "hug/c.jpg": "rejected",
        "hugg/x": "rejected",
        "photo.jpg": "rejected",
        "squish/a.jpg": "rejected",
        "squish/b.jpg": "completed",
    }
    assert "a text, not an image" in reason(first, "squish/a.jpg")
    assert "did you mean 'hug'?" in reason(first, "hugg/x")
    assert "put them together into a folder hug/<name>/" in reason(first, "hug/c.jpg")
    assert "no effect's folder" in reason(first, "photo.jpg")
    assert uploads.receipts()["hugg/x"]["reason"] == reason(first, "hugg/x")
    assert (await sweep()).rows == ()
    uploads.put("squish/a.jpg", CHELSEA, at=1.0)
    uploads.put("hugg/x/1.jpg", HOPPER, at=1.0)
    second = await sweep()
    assert states(second) == {"hugg/x": "rejected", "squish/a.jpg": "reused"}
    assert sandbox.counters.submissions == 1


async def test_job_json_sets_duration_and_take(disk: Uploads, sandbox: Sandbox) -> None:
    """Another take of photos that were done is another video; a wish that cannot be is rejected with all that is."""
    disk.pair("hug/a")
    disk.pair("hug/b")
    disk.put("hug/b/job.json", b'\xef\xbb\xbf{"duration": 10, "take": 1}')
    for name, wish in {
        "no json": b"{",
        "no text": b"\xff",
        "list": b"[5]",
        "wrong": b'{"duration": "5", "tak": 1, "take": -1}',
        "seven": b'{"duration": 7}',
    }.items():
        disk.put(f"squish/{name}/job.json", wish)
        disk.put(f"squish/{name}/1.jpg")
    first = await sweep()
    assert first.counts == {"rejected": 5, "completed": 2}
    assert first.cost_usd == pytest.approx(0.515 + 1.03)
    assert len({row.job_id for row in first.rows if row.job_id}) == 2
    wrong = reason(first, "squish/wrong")
    assert "duration: input should be a valid integer; it is '5'" in wrong
    assert "unknown key 'tak': did you mean take?" in wrong
    assert "take: input should be greater than or equal to 0" in wrong
    assert "not valid JSON" in reason(first, "squish/no json")
    assert "not valid JSON" in reason(first, "squish/no text")
    assert "job.json: input should be" in reason(first, "squish/list")
    assert "squish lasts 5 seconds" in reason(first, "squish/seven")
    assert (await sweep()).rows == ()
    disk.put("squish/seven/job.json", b'{"duration": 5}', at=1.0)
    assert states(await sweep()) == {"squish/seven": "completed"}
    assert sandbox.counters.billed == 3


async def test_the_same_photos_twice_are_paid_for_once(disk: Uploads, sandbox: Sandbox) -> None:
    """In one sweep, and under another name later."""
    disk.pair("hug/a")
    disk.pair("hug/b")
    first = await sweep()
    assert sorted(states(first).values()) == ["completed", "reused"]
    disk.pair("hug/c")
    assert states(await sweep()) == {"hug/c": "reused"}
    assert sandbox.counters.billed == 1


async def test_only_the_named_folders_are_looked_at(uploads: Uploads, sandbox: Sandbox) -> None:
    """By their path inside the inbox, by their URL, by the URL of a file in them; each once."""
    for name in ("anna", "anna-and-ben", "cleo"):
        uploads.pair(f"hug/{name}")
    uploads.put("squish/a.jpg")
    uploads.put("squish/b.jpg")
    folders = [f"{uploads.inbox}/hug/anna/1.jpg", "hug/anna/", "squish/a.jpg", "hug/nobody"]
    first = await sweep(folders=folders)
    assert states(first) == {"hug/anna": "completed", "squish/a.jpg": "completed", "hug/nobody": "waiting"}
    assert "nothing has been uploaded" in reason(first, "hug/nobody")
    second = await sweep(folders=["hug", "hug/cleo"])
    assert states(second) == {"hug/anna-and-ben": "reused", "hug/cleo": "reused"}
    assert states(await sweep(folders=[])) == {"squish/b.jpg": "reused"}
    assert sandbox.counters.billed == 2


def _before_each_look(monkeypatch: pytest.MonkeyPatch, *happens: Callable[[], object]) -> list[int]:
    """What happens in the inbox right before the first look, the second, …; gives the numbers of the looks."""
    look, looks = Inbox.look, list[int]()

    async def look_then(self: Inbox, settled: Container[str]) -> Look:
        if len(looks) < len(happens):
            happens[len(looks)]()
        looks.append(len(looks) + 1)
        return await look(self, settled)

    monkeypatch.setattr(Inbox, "look", look_then)
    return looks


def _nothing() -> None:
    pass


async def test_what_arrives_during_the_run_is_done_by_the_same_run(
    uploads: Uploads, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pair that is completed, a new upload, and one that follows while these are made: each has one row."""
    uploads.put("squish/a.jpg")
    uploads.put("hug/late/1.jpg", COLLINS)

    def more() -> None:
        uploads.put("hug/late/2.jpg", HOPPER)
        uploads.put("squish/b.jpg", COLLINS)

    looks = _before_each_look(monkeypatch, _nothing, more, lambda: uploads.put("squish/c.jpg", HOPPER))
    names = ("squish/a.jpg", "hug/late", "squish/b.jpg", "squish/c.jpg")
    assert states(await sweep()) == dict.fromkeys(names, "completed")
    assert sandbox.counters.billed == 4
    assert len(looks) == 4


@pytest.mark.usefixtures("sandbox")
async def test_an_idle_inbox_is_looked_at_once(disk: Uploads, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing could have arrived meanwhile."""
    disk.put("hug/waits/1.jpg", COLLINS)
    looks = _before_each_look(monkeypatch)
    assert states(await sweep()) == {"hug/waits": "waiting"}
    assert len(looks) == 1


@pytest.fixture
def short_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk's file rests after a fifth of a second."""
    for module in ("tasks.uploads", "flows.inbox"):
        monkeypatch.setattr(f"{module}.SETTLE_S", 0.2)


@pytest.mark.usefixtures("short_settling")
async def test_a_file_that_grows_is_left_alone_and_done_by_the_same_run(
    disk: Uploads, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk half a photo can be seen: it is not rejected, and not left for the next sweep."""
    whole = Path(CHELSEA).read_bytes()
    _before_each_look(
        monkeypatch,
        lambda: disk.put("squish/a.jpg", whole[:5000], at=time.time()),
        lambda: disk.put("squish/a.jpg", whole),
    )
    assert states(await sweep()) == {"squish/a.jpg": "completed"}
    assert sandbox.counters.billed == 1


@pytest.mark.usefixtures("short_settling", "sandbox")
async def test_a_file_that_does_not_stop_growing_holds_nobody_up(
    disk: Uploads, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run rests once for it, and no more."""

    def grow() -> None:
        disk.put("squish/a.jpg", b"x" * 5000, at=time.time() + 0.1)

    disk.put("squish/b.jpg")
    looks = _before_each_look(monkeypatch, *[grow] * 9)
    assert states(await sweep()) == {"squish/b.jpg": "completed", "squish/a.jpg": "waiting"}
    assert len(looks) == 3
    assert list(disk.receipts()) == ["squish/b.jpg"]


async def test_half_a_photo_of_an_upload_that_stalled_is_looked_at_again_when_it_goes_on(
    disk: Uploads, sandbox: Sandbox
) -> None:
    """It has rested for long, so it is rejected; that is said of the half, and not of the whole."""
    whole = Path(CHELSEA).read_bytes()
    disk.put("squish/a.jpg", whole[:5000])
    first = await sweep()
    assert "cut short" in reason(first, "squish/a.jpg")
    disk.put("squish/a.jpg", whole)
    assert states(await sweep()) == {"squish/a.jpg": "completed"}
    assert sandbox.counters.billed == 1


async def test_names_that_are_no_text_are_told_and_stop_nothing(disk: Uploads, sandbox: Sandbox) -> None:
    """Bytes that are not UTF-8 cannot be asked for; a line's end in a name is odd, and fine."""
    odd = "\udcff"  # how Python writes a name's byte that is none
    for path in (f"squish/{odd}.jpg", f"{odd}/1.jpg", f"{odd}.jpg", "squish/a\nb.jpg"):
        disk.put(path)
    disk.pair(f"hug/{odd}")
    first = await sweep()
    assert states(first) == {
        r"\udcff.jpg": "rejected",
        r"\udcff/1.jpg": "rejected",
        r"hug/\udcff": "rejected",
        r"squish/\udcff.jpg": "rejected",
        r"squish/a\nb.jpg": "completed",
    }
    assert "its name is not in UTF-8; rename it" in reason(first, r"hug/\udcff")
    assert (await sweep()).rows == ()
    assert sandbox.counters.billed == 1


async def test_what_changes_while_it_is_read_is_looked_at_again_by_the_same_run(
    disk: Uploads, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the first look came to, it was about another file."""
    disk.put("squish/a.jpg", b"not yet")
    _before_each_look(monkeypatch, _nothing, lambda: disk.put("squish/a.jpg", CHELSEA))
    summary = await sweep()
    assert [(row.name, row.state) for row in summary.rows] == [
        ("squish/a.jpg", "rejected"),
        ("squish/a.jpg", "completed"),
    ]
    assert sandbox.counters.billed == 1


@pytest.mark.usefixtures("sandbox")
async def test_the_dashboard_shows_every_upload(
    disk: Uploads, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run with a name, task runs named after the uploads, progress that ends full, one table."""
    disk.pair("hug/anna")
    disk.put("hugg/x/1.jpg")
    disk.put("hug/alone/1.jpg")
    _before_each_look(monkeypatch, _nothing, lambda: disk.put("squish/late.jpg"))
    state = await sweep_state(folders=["hug", "hugg", "squish", "kiss"])
    assert (state.name, state.message) == ("Failed", "2 completed, 2 waiting, 1 rejected")
    wanted = {"flow_runs": {"id": {"any_": [str(state.state_details.flow_run_id)]}}}
    async with httpx.AsyncClient(base_url=prefect_api) as api:
        [run] = (await api.post("/flow_runs/filter", json=wanted)).json()
        artifacts = {
            artifact["type"]: artifact for artifact in (await api.post("/artifacts/filter", json=wanted)).json()
        }
        for _ in range(50):
            names = {run["name"] for run in (await api.post("/task_runs/filter", json=wanted)).json()}
            if len(names) >= 10:
                break
            await asyncio.sleep(0.2)
    assert run["name"] == "inbox · hug + hugg + squish + 1"
    assert artifacts["progress"]["data"] == 100.0
    assert len(artifacts) == 3
    assert {row["name"]: row["state"] for row in json.loads(artifacts["table"]["data"])} == {
        "hug/anna": "completed",
        "hugg/x": "rejected",
        "squish/late.jpg": "completed",
        "hug/alone": "waiting",
        "kiss": "waiting",
    }
    assert {"fetch hug/anna", "submit hug/anna", "persist squish/late.jpg"} <= names

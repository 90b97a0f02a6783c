"""The inbox when something goes wrong: nothing is paid for twice, and what can be mended is looked at again."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

import pytest

from deployments.sandbox.faults import Fault
from flows import generate
from tasks.errors import BadInput, StorageError
from tasks.inbox import Inbox
from tasks.storage import Storage
from tests.conftest import CHELSEA, COLLINS, HOPPER
from tests.inboxes import Uploads, reason, states, sweep
from tests.pauses import shorten

if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from pathlib import Path

    from deployments.sandbox.server import Sandbox
    from tasks.inbox import Look
    from tasks.jobs import SourceImage
    from tasks.workspace import Workspace

pytestmark = pytest.mark.usefixtures("prefect_api", "sandbox")


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Uploads:
    """An empty inbox on a disk; nobody waits for neighbours that are surely dead."""
    shorten(monkeypatch)
    return Uploads(str(tmp_path / "store"), monkeypatch)


def _three(uploads: Uploads) -> None:
    for name, photo in (("a", CHELSEA), ("b", COLLINS), ("c", HOPPER)):
        uploads.put(f"squish/{name}.jpg", photo)


async def test_what_the_provider_said_no_to_is_told_once_and_never_bought_again(
    uploads: Uploads, sandbox: Sandbox
) -> None:
    """A failed generation, and a refused request."""
    sandbox.knobs.faults = [Fault(kind="error_detail", match="squish"), Fault(kind="invalid", match="expansion")]
    uploads.put("squish/a.jpg")
    uploads.put("expansion/a.jpg")
    assert states(await sweep()) == {"squish/a.jpg": "failed", "expansion/a.jpg": "rejected"}
    submissions = sandbox.counters.submissions
    assert (await sweep()).rows == ()
    sandbox.knobs.faults = []
    uploads.forget()
    assert states(await sweep()) == {"squish/a.jpg": "failed", "expansion/a.jpg": "rejected"}
    assert sandbox.counters.submissions == submissions


async def test_lost_receipts_cost_a_look_and_no_money(uploads: Uploads, sandbox: Sandbox) -> None:
    """A crash between the video and its receipt, or a person who removes them: the ledger knows the photos."""
    uploads.put("squish/a.jpg")
    uploads.put("squish/bad.jpg", b"hello")
    first = await sweep()
    uploads.forget()
    second = await sweep()
    assert states(first) == {"squish/a.jpg": "completed", "squish/bad.jpg": "rejected"}
    assert states(second) == {"squish/a.jpg": "reused", "squish/bad.jpg": "rejected"}
    assert second.cost_usd == 0
    assert (await sweep()).rows == ()
    assert sandbox.counters.submissions == 1


async def test_without_money_the_rest_is_left_for_a_later_sweep(uploads: Uploads, sandbox: Sandbox) -> None:
    """Out of credits, then out of budget, then all of it is there."""
    _three(uploads)
    sandbox.knobs.balance_usd = 0.6
    first = await sweep(max_in_flight=1)
    assert first.counts == {"deferred": 2, "completed": 1}
    sandbox.knobs.balance_usd = 50.0
    second = await sweep(budget_usd=0.6)
    assert second.counts == {"completed": 1, "deferred": 1}
    assert "budget" in reason(second, next(row.name for row in second.rows if row.state == "deferred"))
    assert (await sweep()).counts == {"completed": 1}
    assert sandbox.counters.billed == uploads.videos() == 3


async def test_what_stays_open_is_taken_up_by_the_next_sweep(
    uploads: Uploads, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is paid for, and the wait was too short: no other submission."""
    uploads.put("squish/a.jpg")
    sandbox.knobs.generate_seconds = 1.5
    monkeypatch.setenv("EFFECTS_GENERATION_TIMEOUT_S", "0.3")
    assert states(await sweep()) == {"squish/a.jpg": "open"}
    monkeypatch.delenv("EFFECTS_GENERATION_TIMEOUT_S")
    assert states(await sweep()) == {"squish/a.jpg": "completed"}
    assert sandbox.counters.submissions == 1


async def test_what_is_unknown_is_looked_up_by_the_next_sweep(uploads: Uploads, sandbox: Sandbox) -> None:
    """The answer to a paid request was lost, and the provider's log could not be read then."""
    uploads.put("squish/a.jpg")
    sandbox.knobs.faults = [Fault(kind="reset", route="submit", when="after"), Fault(kind="503", route="logs")]
    assert states(await sweep()) == {"squish/a.jpg": "unknown"}
    sandbox.knobs.faults = []
    assert states(await sweep()) == {"squish/a.jpg": "completed"}
    assert sandbox.counters.billed == sandbox.counters.submissions == 1


async def test_two_sweeps_at_once_pay_once(uploads: Uploads, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find all of it new; each ends with every upload in a state, and they agree on the videos."""
    _three(uploads)
    uploads.pair("hug/anna")
    look, both, looks = Inbox.look, asyncio.Barrier(2), iter([True, True])

    async def together(self: Inbox, settled: Container[str]) -> Look:
        found = await look(self, settled)
        if next(looks, False):
            await both.wait()
        return found

    monkeypatch.setattr(Inbox, "look", together)
    first, second = await asyncio.gather(sweep(), sweep())
    assert len(first.rows) == len(second.rows) == 4
    assert {*states(first).values(), *states(second).values()} <= {"completed", "reused"}
    assert {row.video for row in first.rows} == {row.video for row in second.rows}
    assert sandbox.counters.billed == uploads.videos() == 4
    assert first.cost_usd + second.cost_usd == pytest.approx(4 * 0.515)
    assert (await sweep()).rows == ()


async def test_what_could_not_be_read_is_looked_at_again_though_it_has_not_changed(
    uploads: Uploads, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not the photo that was bad, but the way to it."""
    uploads.put("squish/a.jpg")
    uploads.put("squish/b/1.jpg", COLLINS)
    uploads.put("squish/b/job.json", b'{"take": 1}')
    read = Storage.read

    async def refuse(_images: Sequence[str], _workspace: Workspace) -> tuple[SourceImage, ...]:
        raise BadInput("image 1: access is not allowed")

    async def lose(self: Storage, path: str) -> bytes | None:
        if path.endswith("job.json"):
            raise StorageError(f"cannot read {path}: it does not answer in time")
        return await read(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(generate, "fetch_images", refuse)
        patch.setattr(Storage, "read", lose)
        first = await sweep()
    assert states(first) == {"squish/a.jpg": "rejected", "squish/b": "deferred"}
    assert "job.json" in reason(first, "squish/b")
    assert states(await sweep()) == {"squish/a.jpg": "completed", "squish/b": "completed"}
    assert sandbox.counters.billed == 2


async def test_a_folder_that_cannot_be_listed_is_told_by_every_sweep_until_it_can(
    uploads: Uploads, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the inbox is done meanwhile."""
    uploads.pair("hug/anna")
    uploads.put("squish/a.jpg")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("hug/anna"):
            raise PermissionError(13, "no", path)
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        first = await sweep()
        assert states(first) == {"hug/anna": "rejected", "squish/a.jpg": "completed"}
        assert reason(first, "hug/anna") == "it cannot be listed: access is not allowed"
        assert states(await sweep()) == {"hug/anna": "rejected"}
    assert states(await sweep()) == {"hug/anna": "completed"}
    assert sandbox.counters.billed == 2


async def test_what_is_done_is_told_even_if_the_inbox_is_gone_by_the_end(
    uploads: Uploads, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The last look fails: what it might have found is the next sweep's."""
    uploads.put("squish/a.jpg")
    look, looks = Inbox.look, iter([True])

    async def once(self: Inbox, settled: Container[str]) -> Look:
        if next(looks, False):
            return await look(self, settled)
        raise StorageError("cannot list the inbox: it does not answer in time")

    monkeypatch.setattr(Inbox, "look", once)
    with caplog.at_level(logging.WARNING, "effects"):
        assert states(await sweep()) == {"squish/a.jpg": "completed"}
    assert "left for the next sweep: cannot list the inbox" in caplog.text

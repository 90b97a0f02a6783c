"""One video, from photos anywhere to a file in the target: what a user sees of it."""

from __future__ import annotations

import asyncio
import functools
import json
import threading
import zipfile
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import av
import fsspec
import httpx
import pytest
from prefect import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.sorting import TaskRunSort

from deployments.cli import main
from deployments.sandbox.faults import Fault
from flows.generate import generate
from flows.outcomes import outcome_of
from tasks.errors import StorageError
from tasks.jobs import Outcome, Record
from tasks.storage import Storage
from tests.conftest import CHELSEA, COLLINS, HOPPER, PHOTOS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments.sandbox.server import Sandbox

pytestmark = pytest.mark.usefixtures("prefect_api")

KEYS = ["state", "job_id", "effect", "generation_id", "attempt", "video", "metadata", "cost_usd", "seconds", "reason"]


def _run(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, object]:
    assert main(["generate", *arguments, "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert list(document) == KEYS
    return dict(document)


def _read(url: object) -> bytes:
    with fsspec.open(str(url), "rb") as file:
        return bytes(file.read())


def _files(url: str) -> set[str]:
    filesystem, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    return {str(path)[len(root) :].lstrip("/") for path in filesystem.find(root)}


def test_from_bucket_to_bucket_with_json(s3: str, sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """Photos in S3, ledger and video in S3, one document on stdout with exactly the promised keys."""
    for name in ("collins.jpg", "hopper.jpg"):
        fsspec.filesystem("s3").put_file(str(PHOTOS / name), f"{s3}/in/{name}")
    document = _run(capsys, "hug", f"{s3}/in/collins.jpg", f"{s3}/in/hopper.jpg", "--target", f"{s3}/out")
    assert document["state"] == "completed"
    assert document["attempt"] == 1
    assert document["cost_usd"] == pytest.approx(0.515)
    folder = f"hug/{document['job_id']}"
    assert document["video"] == f"{s3}/out/{folder}/video.mp4"
    assert document["metadata"] == f"{s3}/out/{folder}/metadata.json"
    files = _files(f"{s3}/out")
    learned = {name for name in files if name.startswith("_history/")}
    assert len(learned) == 1
    assert files - learned == {
        f"{folder}/{name}"
        for name in (
            *("video.mp4", "poster.jpg", "metadata.json"),
            *("attempts/1/claim.json", "attempts/1/generation.json", "attempts/chosen.json"),
        )
    }
    record = Record.model_validate_json(_read(document["metadata"]))
    assert [source.url for source in record.sources] == [f"{s3}/in/collins.jpg", f"{s3}/in/hopper.jpg"]
    assert record.generation_id == document["generation_id"]
    assert record.client_request_id in sandbox.counters.billed_by_client_request_id
    assert record.facts.codec == "h264"
    assert record.facts.seconds == pytest.approx(5, abs=0.2)
    assert len(_read(document["video"])) == record.facts.size
    assert sandbox.counters.keys_leaked == 0


def test_asking_again_reuses_what_is_there_under_any_name(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Contents count, names do not; nothing is sent, nothing is spent."""
    first = _run(capsys, "hug", COLLINS, HOPPER)
    renamed = tmp_path / "someone.jpg"
    renamed.write_bytes(Path(COLLINS).read_bytes())
    again = _run(capsys, "hug", str(renamed), HOPPER)
    assert again["state"] == "reused"
    assert again["cost_usd"] == 0
    assert again["video"] == first["video"]
    assert sandbox.counters.submissions == 1


def test_another_take_another_order_or_another_length_is_another_job(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first photo is the person on the left, so order counts; each wish is paid for once."""
    wishes = [
        _run(capsys, "hug", COLLINS, HOPPER),
        _run(capsys, "hug", HOPPER, COLLINS),
        _run(capsys, "hug", COLLINS, HOPPER, "--take", "1"),
        _run(capsys, "hug", COLLINS, HOPPER, "--duration", "10"),
    ]
    assert len({wish["job_id"] for wish in wishes}) == 4
    assert wishes[3]["cost_usd"] == pytest.approx(1.03)
    assert sandbox.counters.billed == 4


def test_a_dry_run_sends_nothing_writes_nothing_and_names_the_price(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything up to the submission."""
    document = _run(capsys, "hug", COLLINS, HOPPER, "--dry-run")
    assert document["cost_usd"] == pytest.approx(0.515)
    assert "dry run" in str(document["reason"])
    assert sandbox.counters.submissions == 0
    assert not Path("videos").exists()


def test_a_dry_run_that_breaks_off_shows_no_price(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A target that is away for a moment: exit code 1, and nobody is told that everything was checked."""

    async def away(*_: object) -> None:
        raise StorageError("the target is away")

    monkeypatch.setattr(Storage, "read", away)
    assert main(["generate", "hug", COLLINS, HOPPER, "--dry-run"]) == 1
    told = capsys.readouterr().out
    assert "the target is away" in told
    assert "everything was checked" not in told
    assert sandbox.counters.submissions == 0


@pytest.fixture
def web() -> Iterator[str]:
    """A web server with the photos; gives its URL."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(PHOTOS))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_photos_come_from_any_fsspec_url(
    sandbox: Sandbox, web: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Path, file://, memory://, http:// and an archive: the same contents are the same job."""
    fsspec.filesystem("memory").put_file(CHELSEA, "/in/cat.jpg")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.write(CHELSEA, "cat.jpg")
    urls = [
        CHELSEA,
        f"file://{CHELSEA}",
        "memory://in/cat.jpg",
        f"{web}/chelsea.jpg",
        "zip://cat.jpg::file://" + str(tmp_path / "photos.zip"),
    ]
    documents = [_run(capsys, "squish", url) for url in urls]
    assert [document["state"] for document in documents] == ["completed", *["reused"] * 4]
    assert sandbox.counters.billed == 1


def test_a_photo_on_a_private_host_is_refused_where_the_provider_is_public(
    web: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody else's manifest must not read what only this machine can reach."""
    monkeypatch.setenv("EFFECTS_API_KEY", "key")
    assert main(["generate", "squish", f"{web}/chelsea.jpg", "--dry-run"]) == 2
    assert "not public" in capsys.readouterr().err


def test_staged_photos_are_signed_and_removed_when_the_job_ends(
    s3: str, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Local photos go through the staging bucket; the signature reaches neither ledger nor metadata."""
    monkeypatch.setenv("EFFECTS_DELIVERY", "auto")
    monkeypatch.setenv("EFFECTS_STAGING", f"{s3}/staging")
    document = _run(capsys, "hug", COLLINS, HOPPER)
    assert document["state"] == "completed"
    assert sandbox.counters.image_fetches == 2
    assert _files(f"{s3}/staging") == set()
    for path in Path("videos").rglob("*.json"):
        assert "Signature" not in path.read_text()


async def test_signed_links_do_not_reach_the_dashboard(
    sandbox: Sandbox, s3: str, prefect_api: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A photo that is given as a signed link is fetched with it; parameters, logs and ledger hold its public part."""
    fsspec.filesystem("s3").put_file(CHELSEA, f"{s3}/cat.jpg")
    link = fsspec.filesystem("s3").sign(f"{s3}/cat.jpg")
    assert "Signature" in link
    document = await asyncio.to_thread(_run, capsys, "squish", link)
    assert document["state"] == "completed"
    assert sandbox.counters.billed == 1
    async with httpx.AsyncClient() as api:
        runs = await api.post(f"{prefect_api}/flow_runs/filter", json={"limit": 1, "sort": "START_TIME_DESC"})
        logs = await api.post(f"{prefect_api}/logs/filter", json={"limit": 200, "sort": "TIMESTAMP_DESC"})
    kept = "".join(path.read_text() for path in Path("videos").rglob("*.json"))
    for seen in (runs.text, logs.text, kept):
        assert "cat.jpg" in seen or seen is logs.text
        assert "Signature" not in seen


async def test_every_step_and_every_look_can_be_seen_in_prefect(sandbox: Sandbox) -> None:
    """One task run a step; while it waits, the poll is AwaitingRetry, and its message has the provider's status."""
    sandbox.knobs.generate_seconds = 1.2
    state = await generate("hug", [COLLINS, HOPPER], return_state=True)
    assert state.name == "Completed"
    run_id = state.state_details.flow_run_id
    assert isinstance(run_id, UUID)
    async with get_client() as client:
        for _ in range(50):  # task runs are recorded a moment later
            runs = await client.read_task_runs(
                flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])), limit=50, sort=TaskRunSort.ID_DESC
            )
            if len(runs) == 5 and all(run.state and run.state.is_completed() for run in runs):
                break
            await asyncio.sleep(0.2)
        steps = ["fetch", "persist", "poll", "submit", "validate"]
        assert sorted(run.name for run in runs) == [f"{step} hug" for step in steps]
        poll = next(run for run in runs if run.name.startswith("poll"))
        states = await client.read_task_run_states(poll.id)
    waits = [state.message or "" for state in states if state.name == "AwaitingRetry"]
    assert len(waits) >= 2
    assert all("queued" in wait or "generating" in wait for wait in waits)
    assert poll.run_count == len(waits) + 1


async def test_the_flow_run_says_why_it_failed(sandbox: Sandbox) -> None:
    """A person reads the reason and the next move where they look first."""
    sandbox.knobs.faults = [Fault(kind="error_detail", error_type="face_detection_error")]
    state = await generate("hug", [COLLINS, HOPPER], return_state=True)
    assert (state.type.value, state.name) == ("FAILED", "Failed")
    outcome = outcome_of(state)
    assert state.message == outcome.reason
    assert "→" in (state.message or "")


async def test_many_runs_of_one_wish_at_once_pay_once(sandbox: Sandbox) -> None:
    """One wins the claim; the others wait for it, and all end with the same video."""
    states = await asyncio.gather(*(generate("hug", [COLLINS, HOPPER], return_state=True) for _ in range(4)))
    outcomes: list[Outcome] = [outcome_of(state) for state in states]
    assert {outcome.state for outcome in outcomes} <= {"completed", "reused"}
    assert len({outcome.video for outcome in outcomes}) == 1
    assert sandbox.counters.submissions == 1


def test_the_stored_video_plays(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    """It decodes to its end, and its poster is one of its pictures."""
    sandbox.knobs.render = True
    document = _run(capsys, "squish", CHELSEA)
    with av.open(str(document["video"])) as film:
        assert film.streams.video[0].codec_context.name == "h264"
        assert film.streams.audio
        assert sum(1 for _ in film.decode(video=0)) == 120
    assert Path(str(document["video"])).with_name("poster.jpg").read_bytes().startswith(b"\xff\xd8")


async def test_a_state_that_the_server_gives_back_bare_still_tells_the_outcome(sandbox: Sandbox) -> None:
    """As it does where it was told twice, its first answer having been lost."""
    state = await generate("squish", [CHELSEA], return_state=True)
    bare = state.model_copy(update={"data": None})
    assert outcome_of(bare) == outcome_of(state)
    assert outcome_of(bare).state == "completed"
    assert sandbox.counters.billed == 1

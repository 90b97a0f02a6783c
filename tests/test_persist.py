"""From the provider's link to a finished job: bytes first, `metadata.json` last, and nothing left lying about."""

from __future__ import annotations

import asyncio
import hashlib
import tracemalloc
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from deployments.sandbox.faults import Fault
from tasks.errors import BadResult, EffectsError, GenerationPending, ProviderBusy, StorageError
from tasks.films import inspect_film
from tasks.persist import VERSIONED, persist, persist_video, refresh
from tasks.poll import poll
from tasks.provider import Provider
from tasks.storage import Storage
from tasks.submit import submit
from tasks.wait import Wait
from tests.conftest import looked_at

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from deployments.sandbox.server import Sandbox
    from tasks.jobs import Record, Request, Video
    from tasks.workspace import Workspace

SIGNED = "https://me:s3cret@bucket.example/in/left.jpg?X-Amz-Signature=s3cret"


@pytest.fixture(autouse=True)
def at_once(sandbox: Sandbox) -> None:
    """Waiting is tested elsewhere."""
    sandbox.knobs.generate_seconds = 0.0


async def _finished(workspace: Workspace) -> Video:
    """A generation whose video waits to be downloaded; its first photo came from a signed URL."""
    request = await looked_at(workspace)
    left, right = request.sources
    request = request.model_copy(update={"sources": (left.model_copy(update={"url": SIGNED}), right)})
    generation, wait = await submit(request, workspace), Wait(10.0, age_s=60.0)
    while True:
        try:
            video = await poll(generation, workspace, wait)
        except GenerationPending:
            await asyncio.sleep(0.05)
        else:
            for source in request.sources:
                assert source.path is not None
                source.path.unlink()  # so that the scratch folder shows what persisting leaves
            return video


def _folder(request: Request) -> Path:
    return Path("videos", request.effect, request.job_id)


def _is_open(request: Request) -> bool:
    return Path("videos", "_open", f"{request.job_id}.json").exists()


def _files(request: Request) -> set[str]:
    return {path.name for path in _folder(request).iterdir() if path.is_file()}


def _same(*records: Record) -> bool:
    first, *others = [record.model_dump(exclude={"stored_at", "seconds", "looks"}) for record in records]
    return all(other == first for other in others)


async def test_the_video_its_poster_and_its_metadata_are_there(workspace: Workspace, sandbox: Sandbox) -> None:
    """And the job is not open any more."""
    video = await _finished(workspace)
    request = video.generation.request
    assert _is_open(request)
    record = await persist(video, workspace)
    assert _files(request) == {"video.mp4", "poster.jpg", "metadata.json"}
    content = (_folder(request) / "video.mp4").read_bytes()
    assert (record.facts.sha256, record.facts.size) == (hashlib.sha256(content).hexdigest(), len(content))
    assert record.facts == inspect_film(_folder(request) / "video.mp4")
    with Image.open(_folder(request) / "poster.jpg") as poster:
        assert (poster.format, poster.size) == ("JPEG", (record.facts.width, record.facts.height))
    assert await workspace.ledger.record(request) == record
    assert not _is_open(request)
    assert list(workspace.scratch.iterdir()) == []
    assert sandbox.counters.files == 1


async def test_the_record_says_all_there_is_to_know_and_nothing_secret(workspace: Workspace, sandbox: Sandbox) -> None:
    """What was asked for, what it cost, when, with which versions; no signature, no credentials, no scratch path."""
    video = await _finished(workspace)
    generation = video.generation
    record = await persist(video, workspace)
    folder = _folder(generation.request).resolve()
    assert (record.job_id, record.effect, record.duration, record.take) == (generation.request.job_id, "hug", 5, 0)
    assert (record.model, record.attempt, record.generation_id) == (generation.request.model, 1, generation.id)
    assert list(sandbox.counters.billed_by_client_request_id) == [record.client_request_id]
    assert record.cost_usd == pytest.approx(0.515)
    assert [source.url for source in record.sources] == [
        "https://bucket.example/in/left.jpg",
        generation.request.sources[1].url,
    ]
    assert [source.sha256 for source in record.sources] == [source.sha256 for source in generation.request.sources]
    assert all(source.width and source.height and source.media_type for source in record.sources)
    assert (record.video, record.poster) == (str(folder / "video.mp4"), str(folder / "poster.jpg"))
    assert record.submitted_at <= record.seen_at <= record.stored_at
    assert record.seconds == pytest.approx((record.stored_at - record.submitted_at).total_seconds(), abs=0.001)
    assert record.looks >= 1
    assert record.facts.seconds == pytest.approx(5, abs=0.2)
    assert set(record.versions) == set(VERSIONED)
    assert all(record.versions.values())
    for path in Path("videos").rglob("*.json"):
        text = path.read_text()
        assert "s3cret" not in text
        assert "sandbox" not in text, "neither the key nor the link of the video is kept"
        assert str(workspace.scratch) not in text


async def test_the_key_goes_nowhere_near_the_content_network(workspace: Workspace, sandbox: Sandbox) -> None:
    """The link redirects to a storage; both hand the file out to anybody."""
    await persist(await _finished(workspace), workspace)
    assert (sandbox.counters.downloads, sandbox.counters.files) == (1, 1)
    assert sandbox.counters.keys_leaked == 0


def _failing(real: Callable[..., Awaitable[Any]], fails: Callable[[], bool]) -> Callable[..., Awaitable[Any]]:
    async def call(self: Storage, path: str, *arguments: object) -> object:
        if fails():
            raise StorageError(f"cannot write {path}: the disk is full")
        return await real(self, path, *arguments)

    return call


@pytest.mark.parametrize(("step", "there"), [(1, set()), (2, {"video.mp4"}), (3, {"video.mp4", "poster.jpg"})])
async def test_metadata_comes_last_whichever_write_fails(
    step: int, there: set[str], workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job stays open, the error knows its generation, and doing it again completes it."""
    video = await _finished(workspace)
    request = video.generation.request
    with monkeypatch.context() as full:
        writes = iter(range(1, 100))

        def fails() -> bool:
            return next(writes) >= step

        full.setattr(Storage, "upload", _failing(Storage.upload, fails))
        full.setattr(Storage, "write", _failing(Storage.write, fails))
        with pytest.raises(StorageError) as caught:
            await persist(video, workspace)
    assert (caught.value.job_id, caught.value.attempt) == (request.job_id, 1)
    assert (caught.value.generation_id, caught.value.state) == (video.generation.id, "open")
    assert _files(request) == there
    assert _is_open(request)
    assert list(workspace.scratch.iterdir()) == []
    await persist(video, workspace)
    assert _files(request) == {"video.mp4", "poster.jpg", "metadata.json"}
    assert not _is_open(request)
    assert sandbox.counters.billed == 1


@pytest.mark.parametrize("what", ["tasks.workspace.withdraw", "tasks.ledger.Ledger.close"])
async def test_a_job_whose_end_cannot_be_noted_stays_open(
    what: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The video is there, and the job is done; a warning tells of what is left to tidy, and so does the open list."""
    video = await _finished(workspace)
    request = video.generation.request

    async def away(*_: object) -> None:
        raise StorageError("the staging area is away", lasting=True)

    with monkeypatch.context() as broken:
        broken.setattr(what, away)
        record = await persist(video, workspace)
    assert "the staging area is away" in caplog.text
    assert await workspace.ledger.record(request) == record
    assert _is_open(request)
    await persist(video, workspace)
    assert not _is_open(request)


@pytest.mark.parametrize("stored", [0, 1, None])
async def test_a_store_that_does_not_keep_what_it_was_given_is_found_out(
    stored: int | None, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The video is read back in size before anything says that it is there."""
    video = await _finished(workspace)

    async def size(*_: object) -> int | None:
        return stored

    monkeypatch.setattr(Storage, "size", size)
    with pytest.raises(StorageError, match="bytes after"):
        await persist(video, workspace)
    assert "metadata.json" not in _files(video.generation.request)


async def test_persisting_again_changes_nothing(workspace: Workspace) -> None:
    """Two processes may have waited for the same generation."""
    video = await _finished(workspace)
    first = await persist(video, workspace)
    again = await persist(video, workspace)
    assert _same(first, again)
    assert _files(video.generation.request) == {"video.mp4", "poster.jpg", "metadata.json"}


async def test_two_at_once_are_harmless(workspace: Workspace, sandbox: Sandbox) -> None:
    """Whoever writes last, what is stored is whole."""
    video = await _finished(workspace)
    request = video.generation.request
    records = await asyncio.gather(*(persist(video, workspace) for _ in range(8)))
    stored = await workspace.ledger.record(request)
    assert stored in records
    assert _same(*records)
    assert _files(request) == {"video.mp4", "poster.jpg", "metadata.json"}
    assert inspect_film(_folder(request) / "video.mp4") == records[0].facts
    assert list(workspace.scratch.iterdir()) == []
    assert sandbox.counters.billed == 1


async def test_the_videos_of_two_attempts_never_mix(workspace: Workspace) -> None:
    """Where a person allowed a second submission and both came to a video, the first is the job's; none is lost."""
    video = await _finished(workspace)
    request = video.generation.request
    assert await workspace.ledger.choose(request, 2) == 2
    with pytest.raises(EffectsError, match="spare") as caught:
        await persist(video, workspace)
    assert caught.value.state == "open"
    assert _files(request) == set()
    inspect_film(_folder(request) / "attempts" / "1" / "spare.mp4")


@pytest.fixture
async def strict(workspace: Workspace, sandbox: Sandbox) -> AsyncIterator[Workspace]:
    """A workspace that downloads from public hosts only."""
    path = workspace.catalogue.provider.path
    async with Provider(sandbox.url, "sandbox", path, private_hosts=False) as provider:
        workspace.provider = provider
        yield workspace


async def test_a_link_to_a_private_host_is_not_followed(strict: Workspace, sandbox: Sandbox) -> None:
    """An answer can name any host; nothing is asked of one that only this machine can reach."""
    video = await _finished(strict)
    with pytest.raises(BadResult, match=r"not public: 127\.0\.0\.1") as caught:
        await persist(video, strict)
    assert caught.value.generation_id == video.generation.id
    assert (sandbox.counters.downloads, sandbox.counters.files) == (0, 0)
    assert _is_open(video.generation.request)
    assert list(strict.scratch.iterdir()) == []


async def test_a_redirect_to_a_private_host_is_not_followed(
    strict: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The link is public, where it leads to is not."""

    async def the_link_is(url: str) -> bool:
        return "/cdn/" in url

    monkeypatch.setattr("tasks.provider.is_public", the_link_is)
    with pytest.raises(BadResult, match="not public"):
        await persist(await _finished(strict), strict)
    assert (sandbox.counters.downloads, sandbox.counters.files) == (1, 0)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "no link at all", "http://[oops/a.mp4", "http://no-host.invalid/"]
)
async def test_a_link_that_is_none_is_trouble_of_the_provider(url: str, workspace: Workspace) -> None:
    """The job stays open, and its link is asked for again."""
    video = await _finished(workspace)
    with pytest.raises(EffectsError) as caught:
        await persist(video.model_copy(update={"url": url}), workspace)
    assert isinstance(caught.value, ProviderBusy | BadResult)
    assert caught.value.generation_id
    assert list(workspace.scratch.iterdir()) == []


@pytest.mark.parametrize(
    "kind", ["cdn_expired", "cdn_404", "cdn_503", "cdn_html", "cdn_short", "cdn_not_video", "cdn_truncated"]
)
async def test_trouble_with_the_file_leaves_nothing_behind(kind: str, workspace: Workspace, sandbox: Sandbox) -> None:
    """Neither in the target nor in the scratch folder; and the next try succeeds."""
    video = await _finished(workspace)
    sandbox.knobs.faults = [Fault(kind=kind, count=1)]
    with pytest.raises((ProviderBusy, BadResult)) as caught:
        await persist(video, workspace)
    assert caught.value.generation_id == video.generation.id
    assert _files(video.generation.request) == set()
    assert list(workspace.scratch.iterdir()) == []
    await persist(video, workspace)


async def test_an_expired_link_is_asked_for_again(workspace: Workspace, sandbox: Sandbox) -> None:
    """Links live for minutes; the generation gives a new one."""
    video = await _finished(workspace)
    stale = video.model_copy(update={"url": f"{sandbox.url}/cdn/expired/output.mp4"})
    with pytest.raises(ProviderBusy, match="404"):
        await persist(stale, workspace)
    fresh = await refresh(stale, workspace)
    assert fresh == video.model_copy(update={"looks": video.looks + 1})
    await persist(fresh, workspace)


async def test_a_look_for_a_new_link_that_fails_leaves_the_job_open(workspace: Workspace, sandbox: Sandbox) -> None:
    """It is paid for: it is never called deferred."""
    video = await _finished(workspace)
    sandbox.knobs.faults = [Fault(kind="503", route="poll", count=1), Fault(kind="unauthorized", route="poll", count=1)]
    for _ in range(2):
        with pytest.raises(EffectsError) as caught:
            await refresh(video, workspace)
        assert (caught.value.state, caught.value.generation_id) == ("open", video.generation.id)
    sandbox.knobs.faults = [Fault(kind="not_found", route="poll", count=1)]
    assert await refresh(video, workspace) == video


@pytest.mark.usefixtures("prefect_api")
async def test_the_step_finds_a_new_link_by_itself(
    workspace: Workspace, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its second try looks at the generation again, and the record counts that look."""
    monkeypatch.setattr(persist_video, "retry_delay_seconds", [0.05])
    video = await _finished(workspace)
    stale = video.model_copy(update={"url": f"{sandbox.url}/cdn/expired/output.mp4"})
    record = await persist_video(stale, workspace)
    assert record.looks == video.looks + 1
    assert not _is_open(video.generation.request)


async def test_a_large_video_is_never_held_in_memory(workspace: Workspace, tmp_path: Path) -> None:
    """It is streamed to the disk, whatever its size."""
    size = 60_000_000

    class Large(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(size))
            self.end_headers()
            for _ in range(60):
                self.wfile.write(block)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    block = bytes(1_000_000)
    with HTTPServer(("127.0.0.1", 0), Large) as server:
        Thread(target=server.handle_request, daemon=True).start()
        tracemalloc.start()
        got = await workspace.provider.download(f"http://127.0.0.1:{server.server_port}/", tmp_path / "large")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert got == (tmp_path / "large").stat().st_size == size
    assert peak < 10_000_000

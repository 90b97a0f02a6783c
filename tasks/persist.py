"""Persist: download, check by decoding, store the bytes, and write `metadata.json` last."""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from prefect import runtime, task
from prefect.cache_policies import NO_CACHE

from tasks.errors import BadResult, EffectsError, GenerationTimeout, ProviderBusy, StorageError
from tasks.films import inspect_film, save_poster
from tasks.jobs import Record, Video, VideoFacts, now
from tasks.visibility import named, retry_if

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tasks.jobs import Generation
    from tasks.workspace import Workspace

log = logging.getLogger("effects")

LENGTH_TOLERANCE_S = 1.0
"""Models round to whole frames and pad: 5 s come as 5.0 to 5.1; a second off is another video."""

VERSIONED = ("photo-effects-pipeline", "prefect", "httpx", "fsspec", "av")


@task(
    name="persist",
    task_run_name=named("persist"),
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=[2, 10, 30],
    retry_condition_fn=retry_if(lambda error: isinstance(error, BadResult | ProviderBusy | StorageError)),
)
async def persist_video(video: Video, workspace: Workspace) -> Record:
    """Store a finished video and its metadata in the target.

    Raises:
        BadResult: what came is not the video that was promised; the job stays open and is downloaded again later.
        ProviderBusy, StorageError: the way there is blocked for now; the job stays open.
    """
    if (runtime.task_run.run_count or 1) > 1:
        video = await refresh(video, workspace)
    return await persist(video, workspace)


async def persist(video: Video, workspace: Workspace) -> Record:
    """The step's logic. Doing it twice, or in two processes at once, is harmless."""
    generation, ledger = video.generation, workspace.ledger
    scratch = workspace.scratch / uuid.uuid4().hex
    film, poster = scratch.with_suffix(".mp4"), scratch.with_suffix(".jpg")
    try:
        with _about(generation):
            about = {"effect": generation.request.effect, "job_id": generation.request.job_id}
            log.info("downloading the video", extra=about)
            await workspace.provider.download(video.url, film)
            facts = await asyncio.to_thread(inspect_film, film)
            await _check_length(facts, film, video, workspace)
            await asyncio.to_thread(save_poster, film, poster)
            await _be_chosen(film, video, workspace)
            await ledger.store_file(generation.request, "video.mp4", film)
            await ledger.store_file(generation.request, "poster.jpg", poster)
            record = _record(video, facts, workspace)
            await ledger.record_video(generation.request, record)
            await workspace.end(generation.request)
            return record
    finally:
        film.unlink(missing_ok=True)
        poster.unlink(missing_ok=True)


async def refresh(video: Video, workspace: Workspace) -> Video:
    """The same video with a link that is new: links expire within minutes."""
    with _about(video.generation):
        look = await workspace.provider.look(video.generation.id)
    if look is None or look.video_url is None:
        return video
    return video.model_copy(update={"url": look.video_url, "size": look.size, "looks": video.looks + 1})


@contextmanager
def _about(generation: Generation) -> Iterator[None]:
    """Errors in here carry the generation: it is paid for, so its job stays open whatever happens."""
    try:
        yield
    except EffectsError as error:
        error.job_id, error.attempt = generation.request.job_id, generation.attempt
        error.generation_id = generation.id
        raise


async def _be_chosen(film: Path, video: Video, workspace: Workspace) -> None:
    generation, ledger = video.generation, workspace.ledger
    chosen = await ledger.choose(generation.request, generation.attempt)
    if chosen == generation.attempt:
        return
    name = f"attempts/{generation.attempt}/spare.mp4"
    await ledger.store_file(generation.request, name, film)
    raise GenerationTimeout(
        f"attempt {chosen} came to a video first; that of attempt {generation.attempt} is kept as"
        f" {ledger.url_of(generation.request, name)}"
    )


async def _check_length(facts: VideoFacts, film: Path, video: Video, workspace: Workspace) -> None:
    generation = video.generation
    request = generation.request
    if abs(facts.seconds - request.duration) <= LENGTH_TOLERANCE_S:
        return
    # It plays and was paid for, and its link will not last: keep it where a person can find it.
    name = f"attempts/{generation.attempt}/unexpected.mp4"
    await workspace.ledger.store_file(request, name, film)
    raise BadResult(
        f"the video is {facts.seconds:.1f} s long where {request.duration} s were promised;"
        f" it is kept as {workspace.ledger.url_of(request, name)}"
    )


def _record(video: Video, facts: VideoFacts, workspace: Workspace) -> Record:
    generation, stored_at = video.generation, now()
    request = generation.request.for_ledger()
    return Record(
        **request.model_dump(include={"job_id", "effect", "duration", "model", "take"}),
        sources=request.sources,
        attempt=generation.attempt,
        generation_id=generation.id,
        client_request_id=request.client_request_id(generation.attempt),
        cost_usd=generation.cost_usd,
        submitted_at=generation.submitted_at,
        seen_at=video.seen_at,
        stored_at=stored_at,
        seconds=round((stored_at - generation.submitted_at).total_seconds(), 3),
        looks=video.looks,
        video=workspace.ledger.url_of(request, "video.mp4"),
        poster=workspace.ledger.url_of(request, "poster.jpg"),
        facts=facts,
        versions=_versions(),
    )


@cache
def _versions() -> dict[str, str]:
    """Once a process: the packages' files are read for it."""
    return {name: version(name) for name in VERSIONED}

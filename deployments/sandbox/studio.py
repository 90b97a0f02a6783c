"""Makes the videos of generations: fetches the images, renders in the background, and tells the book how it ended."""

import asyncio
import hashlib
import logging
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from deployments.sandbox.answers import detail
from deployments.sandbox.clip import clip
from deployments.sandbox.counters import Counters
from deployments.sandbox.generations import Book, Generation
from deployments.sandbox.images import BadImage, check, fetch
from deployments.sandbox.knobs import Knobs
from deployments.sandbox.render import render

_log = logging.getLogger(__name__)

# A thread costs more than decoding an image of this size.
_CHECKED_INLINE_BYTES = 64 * 1024


class Studio:
    """The workshop behind one book.

    Args:
        knobs: whether to fetch and to render.
        counters: counts fetched images.
        book: is told how each generation ends.
        state: where the videos are kept; None: a temporary directory, gone after `close`.
        client: fetches images; None: a client of its own, closed by `close`.
    """

    def __init__(
        self, knobs: Knobs, counters: Counters, book: Book, *, state: Path | None, client: httpx.AsyncClient | None
    ) -> None:
        self._knobs, self._counters, self._book = knobs, counters, book
        self._folder = None if state is None else state / "videos"
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._client, self._own_client = client, client is None
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="sandbox-render")
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, generation: Generation) -> None:
        """Begin to make a generation's video in the running event loop."""
        if generation.outcome is None:
            task = asyncio.get_running_loop().create_task(self._make(generation))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def resume(self) -> None:
        """Begin again what a process that was killed had not finished."""
        for generation in self._book:
            self.start(generation)

    def video(self, generation: Generation) -> bytes:
        """The bytes of a finished video.

        Raises:
            OSError: its file is gone.
        """
        if generation.file:
            return self._path(generation).read_bytes()
        return clip(generation.order.duration, generation.id)

    def size(self, generation: Generation) -> int:
        """How many bytes that is; raises the same."""
        return self._path(generation).stat().st_size if generation.file else len(self.video(generation))

    async def close(self) -> None:
        """Stop: what is being rendered at the moment is waited for, the rest is dropped."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._pool.shutdown, wait=True)
        if self._client is not None and self._own_client:
            await self._client.aclose()
        if self._temporary is not None:
            self._temporary.cleanup()

    async def _make(self, generation: Generation) -> None:
        order, loop = generation.order, asyncio.get_running_loop()
        hashes: list[str] = []
        try:
            images = [await self._image(url) for url in order.image_urls] if self._knobs.fetch_images else []
            hashes = [hashlib.sha256(image).hexdigest() for image in images]
            file = self._knobs.render and bool(images)
            if file:
                path = self._path(generation)
                await loop.run_in_executor(self._pool, render, order.scene, images, order.duration, path)
        except BadImage as bad:
            self._book.decide(generation, "error", error=bad.error, image_sha256=hashes)
        except Exception:  # noqa: BLE001  # whatever it is, the provider would say this and go on
            _log.exception("generation %s failed in the sandbox itself", generation.id)
            error = detail("downstream_service_error", "Downstream service error", order.image_urls[0])
            self._book.decide(generation, "error", error=error, image_sha256=hashes)
        else:
            self._book.decide(generation, "video", image_sha256=hashes, file=file)

    async def _image(self, url: str) -> bytes:
        self._counters.image_fetches += 1
        if self._client is None:
            limits = httpx.Limits(max_connections=20)
            # Images wait for a connection as long as it takes: a thousand submissions at once are no failure.
            timeout = httpx.Timeout(self._knobs.fetch_timeout_s, pool=None)
            self._client = httpx.AsyncClient(follow_redirects=True, timeout=timeout, limits=limits)
        data = await fetch(self._client, url)
        if len(data) <= _CHECKED_INLINE_BYTES:
            check(data, url)
        else:
            await asyncio.get_running_loop().run_in_executor(self._pool, check, data, url)
        return data

    def _path(self, generation: Generation) -> Path:
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="sandbox-")
            self._folder = Path(self._temporary.name)
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{generation.link}.mp4"

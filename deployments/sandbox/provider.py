"""The stand-in provider: one ASGI application with the API's routes, its content network and its own controls."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
from starlette import routing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from deployments.sandbox import answers, faults, models, orders
from deployments.sandbox.account import Account
from deployments.sandbox.cdn import Cdn
from deployments.sandbox.control import Control
from deployments.sandbox.counters import Counters
from deployments.sandbox.desk import Desk
from deployments.sandbox.generations import Book, Clock, Generation
from deployments.sandbox.knobs import Knobs
from deployments.sandbox.studio import Studio

PATHS = ("/v2/generate/video/kling/generation", "/v2/video/generations")


class Provider:
    """The provider, as an ASGI application: for a server, or for httpx.ASGITransport in the same process.

    It lives in one event loop. In-process, where no lifespan runs, await `close` at the end.

    Attributes:
        knobs, counters, book: may be read and set while it runs.

    Args:
        knobs: settings.
        state: a directory to remember everything in; None: all is forgotten.
        clock: seconds since the epoch; what is due is decided by it alone.
        sleep: waits, for slow answers.
        client: fetches images in place of a client of its own.

    Raises:
        OSError: the state directory cannot be read or written.
    """

    def __init__(
        self,
        knobs: Knobs | None = None,
        *,
        state: Path | None = None,
        clock: Clock = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self.knobs = knobs or Knobs()
        self.counters = Counters()
        chance = random.Random(self.knobs.seed)  # noqa: S311  # simulation
        self.book = Book(self.knobs, self.counters, clock=clock, chance=chance, state=state)
        self._studio = Studio(self.knobs, self.counters, self.book, state=state, client=client)
        self._desk = Desk(self.knobs, self.counters, clock=clock, sleep=sleep, chance=chance)
        self._app = Starlette(
            routes=[
                *(routing.Route(path, self._submit, methods=["POST"]) for path in PATHS),
                *(routing.Route(path, self._look, methods=["GET"]) for path in PATHS),
                *Account(self._desk, self.book).routes,
                *Cdn(self._desk, self.book, self._studio).routes,
                *Control(self._desk).routes,
            ],
            exception_handlers={404: self._desk.no_route, 405: self._desk.no_route},
            lifespan=self._lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (or the lifespan), as ASGI asks."""
        await self._app(scope, receive, send)

    async def close(self) -> None:
        """Stop the work in the background."""
        await self._studio.close()

    async def _submit(self, request: Request) -> Response:
        self.counters.submissions += 1
        body = await request.body()
        header = request.headers.get("x-client-request-id")
        names = (orders.scene(body), header or "")

        async def act() -> Response:
            self._desk.authorize(request)
            order = orders.read(
                body,
                withdrawn_models=self.knobs.withdrawn_models,
                header=header,
                request_id=request.state.request_id,
            )
            if self.knobs.unverified_card:
                raise answers.unverified_card()
            style = self._desk.strike("submit", faults.ID_STYLES, *names)
            outcome = self._desk.strike("submit", faults.OUTCOMES, *names)
            stuck = outcome is not None and outcome.kind == "stuck"
            generation = self.book.accept(order, style=style.kind if style else "id_nanoid", stuck=stuck)
            if generation is None:
                raise answers.out_of_credits()
            if outcome is not None and not stuck:
                self.book.decide(generation, "error", error=answers.failure(outcome, order.image_urls[0]))
            self._studio.start(generation)
            return self._accepted(generation, names)

        return await self._desk.answer(request, "submit", act, *names)

    def _accepted(self, generation: Generation, names: tuple[str, ...]) -> Response:
        other_key = self._desk.strike("submit", {"generation_id_key"}, *names)
        body: dict[str, object] = {"generation_id" if other_key else "id": generation.id, "status": "queued"}
        cost = generation.credit_hold
        if not self._desk.strike("submit", {"no_meta"}, *names):
            body["meta"] = {"usage": {"credits_used": cost, "usd_spent": models.usd(cost)}}
        headers = {"x-inference-id": generation.id}
        if generation.order.client_request_id is not None:
            headers["x-client-request-id"] = generation.order.client_request_id
        return JSONResponse(body, 201, headers)

    async def _look(self, request: Request) -> Response:
        self.counters.looks += 1
        generation_id = request.query_params.get("generation_id")
        generation = self.book.get(generation_id or "")
        names = (generation.order.scene, generation.order.client_request_id or "") if generation else ()

        async def act() -> Response:
            self._desk.authorize(request)
            if not generation_id:
                raise answers.invalid([{"path": ["generation_id"], "message": "Required", "code": "invalid_type"}])
            if generation is None:
                raise answers.inference_not_found()
            return JSONResponse(self._shown(generation, request, names), headers={"x-inference-id": generation.id})

        return await self._desk.answer(request, "poll", act, *names)

    def _shown(self, generation: Generation, request: Request, names: tuple[str, ...]) -> dict[str, object]:
        status = generation.status(self._desk.clock())
        kinds = {"status_unknown", "status_succeeded"} if status == "completed" else {"status_unknown"}
        fault = self._desk.strike("poll", kinds, *names)
        word = status if fault is None else fault.word if fault.kind == "status_unknown" else "succeeded"
        body: dict[str, object] = {"id": generation.id, "status": word}
        if status == "completed":
            base = (self.knobs.cdn_url or str(request.base_url)).rstrip("/")
            url = f"{base}/cdn/{generation.link}/output.mp4"
            shape = self._desk.strike("poll", faults.VIDEO_SHAPES, *names)
            if shape is None:
                size = self._studio.size(generation)
                body["video"] = {"url": url, "content_type": "video/mp4", "file_name": "output.mp4", "file_size": size}
            else:
                body["video"] = [url] if shape.kind == "video_list" else {"url": url}
        elif status == "error":
            body["error"] = generation.error
        return body

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self._studio.resume()
        try:
            yield
        finally:
            await self.close()

"""The stand-in provider: an ASGI application with the API's routes, over a book, a studio and some faults."""

import asyncio
import contextlib
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as Path_  # ours is a fault's route
from starlette.types import Receive, Scope, Send

from deployments.sandbox import answers, faults, models, orders
from deployments.sandbox.answers import Problem
from deployments.sandbox.cdn import Cdn
from deployments.sandbox.control import Control
from deployments.sandbox.counters import Counters
from deployments.sandbox.generations import Book, Clock, Generation
from deployments.sandbox.knobs import Knobs
from deployments.sandbox.studio import Studio

Act = Callable[[], Awaitable[Response]]

GENERATION_PATHS = ("/v2/generate/video/kling/generation", "/v2/video/generations")
_PERIOD = re.compile(r"([1-9][0-9]{0,3})([mhd])")
_UNIT_S = {"m": 60, "h": 3_600, "d": 86_400}
_LOG_LIMITS = (1, 100, 50)  # least, most, unless told


class Provider:
    """The provider, as an ASGI application: for a server, or for httpx.ASGITransport in the same process.

    In-process, where no lifespan runs, call `close` at the end. It lives in one event loop.

    Attributes:
        knobs, counters, book: may be read and set while it runs.

    Args:
        knobs: settings.
        state: a directory to remember everything in; None: all is forgotten.
        clock: seconds since the epoch; what is due is decided by it alone.
        sleep: waits, for slow answers.
        client: fetches images in place of a client of its own.
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
        self._clock, self._sleep = clock, sleep
        self._chance = random.Random(self.knobs.seed)  # noqa: S311  # simulation
        self.book = Book(self.knobs, self.counters, clock=clock, chance=self._chance, state=state)
        self.studio = Studio(self.knobs, self.counters, self.book, state=state, client=client)
        self._log_calls: deque[float] = deque()
        self._app = Starlette(
            routes=[
                *(Path_(path, self._submit, methods=["POST"]) for path in GENERATION_PATHS),
                *(Path_(path, self._look, methods=["GET"]) for path in GENERATION_PATHS),
                Path_("/v2/logs", self._logs),
                Path_("/v2/billing", self._billing),
                Path_("/v2/billing/transactions", self._transactions),
                Path_("/v1/models/deprecations", self._deprecations),
                Path_("/v1/models", self._models),
                *Cdn(self).routes,
                *Control(self.knobs, self.counters).routes,
            ],
            exception_handlers={404: self._no_route, 405: self._no_route},
            lifespan=self._lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (or the lifespan), as ASGI asks."""
        await self._app(scope, receive, send)

    async def close(self) -> None:
        """Stop the work in the background."""
        await self.studio.close()

    def strike(self, route: faults.Route, kinds: dict[str, faults.Kind], *names: str) -> faults.Fault | None:
        """The fault that strikes now, if any: see `faults.draw`."""
        fault = faults.draw(self.knobs.faults, self._chance, route, kinds, *names)
        if fault is not None:
            self.counters.strike(fault.kind)
        return fault

    async def answered(self, request: Request, route: faults.Route, act: Act, *names: str) -> Response:
        """Act on a request and answer it, as far as the faults let that happen.

        Args:
            request: what came in.
            route: where.
            act: acts and makes the true answer; may raise `Problem`.
            names: scene and client request id it is about, for faults that match those.
        """
        request.state.request_id = f"{self._chance.getrandbits(84):021x}"
        slow = self.strike(route, faults.SLOW, *names)
        fault = self.strike(route, faults.ANSWERS, *names)
        if slow is not None and slow.when == "before":
            await self._sleep(slow.seconds)
        if fault is not None and fault.kind == "malformed_json":
            answer = answers.cut(await self._acted(request, act))
        elif fault is not None:
            if fault.when == "after":
                await self._acted(request, act)
            answer = answers.faulty(fault, request.url.path, self._clock(), request.state.request_id)
        else:
            answer = await self._acted(request, act)
        if slow is not None and slow.when == "after":
            await self._sleep(slow.seconds)
        answer.headers["x-request-id"] = request.state.request_id
        return answer

    async def _acted(self, request: Request, act: Act) -> Response:
        try:
            return await act()
        except Problem as problem:
            return problem.answer(request.url.path, self._clock(), request.state.request_id)

    async def _submit(self, request: Request) -> Response:
        self.counters.submissions += 1
        body = await request.body()
        header = request.headers.get("x-client-request-id")
        scene = re.search(rb'"effect_scene"\s*:\s*"([^"]*)"', body)
        names = (scene[1].decode(errors="replace") if scene else "", header or "")

        async def act() -> Response:
            self._authorize(request)
            order = orders.read(
                body,
                withdrawn_models=self.knobs.withdrawn_models,
                header=header,
                request_id=request.state.request_id,
            )
            if self.knobs.unverified_card:
                raise answers.unverified_card()
            style = self.strike("submit", faults.ID_STYLES, *names)
            # Asked before the balance is: the money of a submission that is refused is not there to be taken twice.
            outcome = self.strike("submit", faults.OUTCOMES, *names)
            stuck = outcome is not None and outcome.kind == "stuck"
            generation = self.book.accept(order, style=style.kind if style else "id_nanoid", stuck=stuck)
            if generation is None:
                raise answers.out_of_credits()
            if outcome is not None and not stuck:
                self.book.decide(generation, "error", error=answers.failure(outcome, order.image_urls[0]))
            self.studio.start(generation)
            return self._accepted(generation, names)

        return await self.answered(request, "submit", act, *names)

    def _accepted(self, generation: Generation, names: tuple[str, ...]) -> Response:
        key = "generation_id" if self.strike("submit", {"generation_id_key": _SHAPE["generation_id_key"]}, *names) else "id"
        body: dict[str, object] = {key: generation.id, "status": "queued"}
        cost = generation.credit_hold
        if not self.strike("submit", {"no_meta": _SHAPE["no_meta"]}, *names):
            body["meta"] = {"usage": {"credits_used": cost, "usd_spent": models.usd(cost)}}
        headers = {"x-inference-id": generation.id}
        if generation.order.client_request_id is not None:
            headers["x-client-request-id"] = generation.order.client_request_id
        return JSONResponse(body, 201, headers)

    async def _look(self, request: Request) -> Response:
        self.counters.looks += 1
        generation = self.book.get(request.query_params.get("generation_id", ""))
        names = (generation.order.scene, generation.order.client_request_id or "") if generation else ()

        async def act() -> Response:
            self._authorize(request)
            if generation is None:
                raise answers.inference_not_found()
            return JSONResponse(self._state(generation, request, names), headers={"x-inference-id": generation.id})

        return await self.answered(request, "poll", act, *names)

    def _state(self, generation: Generation, request: Request, names: tuple[str, ...]) -> dict[str, object]:
        status = generation.status(self._clock())
        word: str = status
        unknown = self.strike("poll", {"status_unknown": faults.POLL_WORDS["status_unknown"]}, *names)
        if unknown is not None:
            word = unknown.word
        elif status == "completed":
            kinds = {"status_succeeded": faults.POLL_WORDS["status_succeeded"]}
            word = "succeeded" if self.strike("poll", kinds, *names) else status
        body: dict[str, object] = {"id": generation.id, "status": word}
        if status == "completed":
            base = (self.knobs.cdn_url or str(request.base_url)).rstrip("/")
            url = f"{base}/cdn/{generation.link}/output.mp4"
            shape = self.strike("poll", faults.VIDEO_SHAPES, *names)
            if shape is None:
                size = self.studio.size(generation)
                body["video"] = {"url": url, "content_type": "video/mp4", "file_name": "output.mp4", "file_size": size}
            else:
                body["video"] = [url] if shape.kind == "video_list" else {"url": url}
        elif status == "error":
            body["error"] = generation.error
        return body

    async def _logs(self, request: Request) -> Response:
        self.counters.logs += 1

        async def act() -> Response:
            self._authorize(request)
            now = self._clock()
            while self._log_calls and self._log_calls[0] <= now - 60:
                self._log_calls.popleft()
            if len(self._log_calls) >= self.knobs.logs_per_minute:
                raise Problem(429, "Too Many Requests")
            self._log_calls.append(now)
            period = _PERIOD.fullmatch(request.query_params.get("period", "24h"))
            limit = _whole(request, "limit", *_LOG_LIMITS)
            offset = _whole(request, "offset", 0, None, 0)
            if period is None:
                raise _query_issue("period")
            rows = self.book.rows(now - int(period[1]) * _UNIT_S[period[2]])
            more = offset + limit < len(rows)
            pagination = {"limit": limit, "offset": offset, "total": len(rows), "has_more": more}
            return JSONResponse({"data": rows[offset : offset + limit], "pagination": pagination})

        return await self.answered(request, "logs", act)

    async def _billing(self, request: Request) -> Response:
        self.counters.billing += 1

        async def act() -> Response:
            self._authorize(request)
            return JSONResponse({"current_balance": models.usd(self.book.balance), "currency": "USD"})

        return await self.answered(request, "billing", act)

    async def _transactions(self, request: Request) -> Response:
        self.counters.billing += 1

        async def act() -> Response:
            self._authorize(request)
            limit, offset = _whole(request, "limit", *_LOG_LIMITS), _whole(request, "offset", 0, None, 0)
            rows = [generation.transaction(self._clock()) for generation in self.book]
            more = offset + limit < len(rows)
            pagination = {"limit": limit, "offset": offset, "total": len(rows), "has_more": more}
            return JSONResponse({"data": rows[offset : offset + limit], "pagination": pagination})

        return await self.answered(request, "billing", act)

    async def _deprecations(self, request: Request) -> Response:
        async def act() -> Response:
            rows = self.knobs.deprecations
            return JSONResponse({"object": "list", "generated_at": answers.iso(self._clock()), "data": rows})

        return await self.answered(request, "models", act)

    async def _models(self, request: Request) -> Response:
        async def act() -> Response:
            wanted = request.query_params.getlist("id")
            priced = "pricing" in request.query_params.getlist("include")
            rows: list[dict[str, object]] = []
            for model, credit_price in models.MODELS.items():
                if model in self.knobs.withdrawn_models or (wanted and model not in wanted):
                    continue
                row: dict[str, object] = {"id": model, "type": "video", "info": {"name": "Kling V1.6 effects"}}
                if priced:
                    row["pricing"] = {"unit": "second", "usd": models.usd(credit_price), "credits": credit_price}
                rows.append(row)
            return JSONResponse({"object": "list", "data": rows})

        return await self.answered(request, "models", act)

    async def _no_route(self, request: Request, _: Exception) -> Response:
        problem = Problem(404, f"Cannot {request.method} {request.url.path}")
        return problem.answer(request.url.path, self._clock(), f"{self._chance.getrandbits(84):021x}")

    def _authorize(self, request: Request) -> None:
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        wanted = self.knobs.api_key
        if scheme.lower() != "bearer" or not key.strip() or (wanted is not None and key.strip() != wanted):
            raise answers.unauthorized()

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        self.studio.resume()
        try:
            yield
        finally:
            await self.close()

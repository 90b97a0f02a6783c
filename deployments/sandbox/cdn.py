"""The content network: video links that redirect to a storage, which hands out the files. It wants no key."""

from starlette import routing
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from deployments.sandbox import faults
from deployments.sandbox.answers import HTML
from deployments.sandbox.clip import clip, still
from deployments.sandbox.connection import Truncated
from deployments.sandbox.desk import Desk
from deployments.sandbox.generations import Book, Generation
from deployments.sandbox.studio import Studio

_WRONG_LENGTH_S = 2


class Cdn:
    """Routes over one book and its studio."""

    def __init__(self, desk: Desk, book: Book, studio: Studio) -> None:
        self._desk, self._book, self._studio = desk, book, studio
        self.routes = [
            routing.Route("/cdn/{link}/output.mp4", self._follow),
            routing.Route("/storage/{link}.mp4", self._store),
        ]

    async def _follow(self, request: Request) -> Response:
        self._desk.counters.downloads += 1
        generation = self._generation(request)
        names = _names(generation)

        async def act() -> Response:
            fault = self._desk.strike("cdn", faults.LINKS, *names)
            if fault is not None and fault.kind == "cdn_503":
                return _xml("SlowDown", 503)
            if fault is not None and fault.kind == "cdn_expired":
                return _xml("AccessDenied", 403, "Request has expired")
            if fault is not None or generation is None:
                return _xml("NoSuchKey", 404)
            return RedirectResponse(f"/storage/{generation.link}.mp4", 302)

        return await self._desk.answer(request, "cdn", act, *names)

    async def _store(self, request: Request) -> Response:
        generation = self._generation(request)
        if generation is None:
            return _xml("NoSuchKey", 404)
        fault = self._desk.strike("cdn", faults.FILES, *_names(generation))
        if fault is None:
            try:
                data = self._studio.video(generation)
            except OSError:
                return _xml("NoSuchKey", 404)
            self._desk.counters.files += 1
            return Response(data, media_type="video/mp4")
        match fault.kind:
            case "cdn_html":
                return HTMLResponse(HTML)
            case "cdn_truncated":
                return Truncated(self._studio.video(generation), media_type="video/mp4")
            case "cdn_short":
                data = self._studio.video(generation)
                return Response(data[: len(data) // 2], media_type="video/mp4")
            case "cdn_not_video":
                return Response(still(), media_type="video/mp4")
        return Response(clip(_WRONG_LENGTH_S, generation.id), media_type="video/mp4")

    def _generation(self, request: Request) -> Generation | None:
        if "authorization" in request.headers:
            self._desk.counters.keys_leaked += 1
        generation = self._book.linked(request.path_params["link"])
        done = generation is not None and generation.status(self._desk.clock()) == "completed"
        return generation if done else None


def _names(generation: Generation | None) -> tuple[str, ...]:
    return (generation.order.scene, generation.order.client_request_id or "") if generation else ()


def _xml(code: str, status: int, message: str = "") -> Response:
    body = f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return Response(body, status, media_type="application/xml")

"""An HTTP endpoint: `/uploads` for senders who know the secret, `/health` for who looks after the listener.

A sender gets 204 only after Prefect has accepted the event, and 503 where it has not: then it sends again. It gets 400
for what nobody can read, 401 without the secret, 413 for what is no notification by its length alone.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import socket
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from deployments.uploads.events import NotAccepted
from tasks.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments.uploads.listener import Listener

LONGEST_BODY = 2 * 1024 * 1024
"""Bytes. Event Grid batches up to 1 MiB; the others send less."""

BODY_S = 10.0
"""For so long a body may take to arrive."""

SHORTEST_SECRET = 16
MOST_WAITING = 2_000
"""Requests at once; each waits for its window. Others get 503 and come again."""

RETRY_AFTER_S = 30

IDLE_S = 75
"""A connection stays open for longer than load balancers keep theirs: what they send on it must not meet its end."""

log = logging.getLogger("effects")


class Endpoint:
    """The endpoint as a source of arrivals.

    Args:
        port: 0 takes a free one.
        secret: what senders have to know; None: only `/health` is served.
        host: address to listen on.

    Attributes:
        url: where it answers, once `serving` is set.

    Raises:
        BadInput: the secret is too short to be one.
    """

    def __init__(self, port: int, *, secret: str | None, host: str = "127.0.0.1") -> None:
        if secret is not None and len(secret) < SHORTEST_SECRET:
            raise BadInput(f"the secret for uploads has to have {SHORTEST_SECRET} characters or more")
        self.url = ""
        self.serving = asyncio.Event()
        self._host, self._port = host, port
        self._secret = secret.encode() if secret is not None else None

    async def listen(self, listener: Listener) -> None:
        """Serve until cancelled; who still waits then gets 503.

        Raises:
            BadInput: it cannot listen there.
        """
        try:
            opened = socket.create_server(
                (self._host, self._port),
                family=socket.AF_INET6 if ":" in self._host else socket.AF_INET,
                backlog=MOST_WAITING,
            )
        except OSError as error:
            raise BadInput(f"cannot listen on {self._host}, port {self._port}: {error.strerror or error}") from error
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.url = f"http://{host}:{opened.getsockname()[1]}"
        server = _Server(
            uvicorn.Config(
                self._app(listener),
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,  # it would tell the secret, where senders have it in the URL
                server_header=False,
                limit_concurrency=MOST_WAITING,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=1,
            )
        )
        log.info("uploads: %s on %s", "listening" if self._secret else "telling how it goes", self.url)
        self.serving.set()
        running = asyncio.create_task(server.serve(sockets=[opened]))
        try:
            await asyncio.shield(running)
        finally:
            server.should_exit = True
            await running

    def _app(self, listener: Listener) -> Starlette:
        async def health(_: Request) -> Response:
            prefect = "answers" if listener.answering else "does not answer"
            return JSONResponse({"prefect": prefect, "pending": listener.pending, **asdict(listener.counters)})

        async def uploads(request: Request) -> Response:
            if not self._is_known(request):
                listener.counters.refused += 1
                return Response(status_code=401, headers={"WWW-Authenticate": "Bearer"})
            return _allow(request) if request.method == "OPTIONS" else await _take(request, listener)

        routes = [Route("/health", health)]
        if self._secret:
            routes.append(Route("/uploads", uploads, methods=["POST", "OPTIONS"]))
        return Starlette(routes=routes)

    def _is_known(self, request: Request) -> bool:
        """As a bearer token, as a basic login's password, or in the URL: some senders can have nothing but a URL."""
        scheme, _, value = request.headers.get("Authorization", "").partition(" ")
        given = [request.query_params.get("token", "")]
        if scheme.lower() == "bearer":
            given.append(value.strip())
        elif scheme.lower() == "basic":
            try:
                given.append(base64.b64decode(value, validate=True).decode().partition(":")[2])
            except (binascii.Error, ValueError):
                return False
        return any(hmac.compare_digest(word.encode(), self._secret or b"") for word in given if word)


class _Server(uvicorn.Server):
    """uvicorn, which leaves the signals to who runs it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _take(request: Request, listener: Listener) -> Response:
    try:
        body = await _body(request)
    except TimeoutError:
        return Response(status_code=408)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    if body is None:
        return Response(status_code=413)
    said = listener.read(body, "HTTP")
    if said.handshake:
        return JSONResponse({"validationResponse": said.handshake})
    if said.problems and not said.arrivals and not said.ignored:
        return JSONResponse({"problems": said.problems}, status_code=400)
    try:
        await listener.tell(said.arrivals)
    except NotAccepted as error:
        return JSONResponse({"reason": error.reason}, status_code=503, headers={"Retry-After": str(RETRY_AFTER_S)})
    return Response(status_code=204)


async def _body(request: Request) -> bytes | None:
    """All of it; None where it is too long."""
    body = bytearray()
    async with asyncio.timeout(BODY_S):
        async for part in request.stream():
            body += part
            if len(body) > LONGEST_BODY:
                return None
    return bytes(body)


def _allow(request: Request) -> Response:
    """The handshake of CloudEvents: yes, this sender may send here, at any rate."""
    origin = request.headers.get("WebHook-Request-Origin")
    if not origin:
        return Response(status_code=400)
    return Response(headers={"Allow": "POST", "WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"})

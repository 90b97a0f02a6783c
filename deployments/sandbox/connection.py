"""Connections that break on purpose: reset before any answer, or closed in the middle of one."""

import asyncio
import socket
import struct
from typing import Any

import httpx
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

# SO_LINGER on, zero seconds: closing discards what is unsent and sends RST in place of FIN.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class OpenProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 protocol, with its transport handed to the application as `scope["state"]["transport"]`."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        # A copy: uvicorn shares this dictionary among all connections, and a transport belongs to one.
        super().__init__(config, server_state, dict(app_state), _loop)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Remember the transport for the requests of this connection."""
        # asyncio does this only for sockets made with proto=IPPROTO_TCP; head and body are two writes, and without it
        # the second waits 40 ms for the client's acknowledgement of the first.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self.app_state["transport"] = transport


class Reset(Response):
    """No answer: the TCP connection is reset.

    Raises:
        httpx.ReadError: there is no connection (the application is driven in-process): what a client would see.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # ASGI's signature
        """Reset the connection of this request."""
        transport = _transport(scope)
        if transport is None:
            raise httpx.ReadError("connection reset by the sandbox")
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
        await _gone(receive)


class Truncated(Response):
    """The head of an answer with its true Content-Length, half of the body, then the connection closes.

    Raises:
        httpx.RemoteProtocolError: there is no connection (driven in-process): what a client would see.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send half, and hang up."""
        transport = _transport(scope)
        if transport is None:
            raise httpx.RemoteProtocolError("peer closed connection without sending complete message body")
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        half = bytes(self.body)[: len(self.body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        transport.close()
        await _gone(receive)


def _transport(scope: Scope) -> asyncio.Transport | None:
    transport: asyncio.Transport | None = scope.get("state", {}).get("transport")
    return transport


async def _gone(receive: Receive) -> None:
    # Returning while uvicorn still thinks the client is there makes it send an answer of its own.
    while (await receive())["type"] != "http.disconnect":
        pass

"""A Prefect server that asks its SQLite database again before it turns a request away.

A write that overlaps with another one fails at once, and Prefect answers 503; its clients then wait two seconds or
more before they ask again, which is most of the time that an uploaded photo waits for its run.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUSY = 503

PAUSES_S = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Before asking again. What is still busy then is answered with 503, and its client waits longer."""


class Patience:
    """ASGI middleware. What was answered with 503 has changed nothing: its transaction was rolled back."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = await _body(receive)
        for pause_s in PAUSES_S:
            if not await self._busy(scope, body, receive, send):
                return
            await asyncio.sleep(pause_s)
        await self._app(scope, _replay(body, receive), send)

    async def _busy(self, scope: Scope, body: list[Message], receive: Receive, send: Send) -> bool:
        """Ask once; an answer that is not 503 goes out as it comes."""
        busy = False

        async def pass_on(message: Message) -> None:
            nonlocal busy
            busy = busy or (message["type"] == "http.response.start" and message["status"] == BUSY)
            if not busy:
                await send(message)

        try:
            # A copy: routing writes into it.
            await self._app(dict(scope), _replay(body, receive), pass_on)
        except Exception:
            if not busy:  # else it is what the 503 told already
                raise
        return busy


async def _body(receive: Receive) -> list[Message]:
    """All messages of a request's body; requests to Prefect are small."""
    messages = [await receive()]
    while messages[-1].get("more_body"):
        messages.append(await receive())
    return messages


def _replay(messages: list[Message], receive: Receive) -> Receive:
    """A request's body once more, and then what comes from the client."""
    left = iter(messages)

    async def replayed() -> Message:
        for message in left:
            return message
        return await receive()

    return replayed

"""The stand-in on a real socket, in a thread of its own: for tests, demos and the command line."""

import asyncio
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import Receive, Scope, Send

from deployments.sandbox.connection import OpenProtocol, Reset
from deployments.sandbox.counters import Counters
from deployments.sandbox.generations import Book, Clock
from deployments.sandbox.knobs import Knobs
from deployments.sandbox.provider import Provider

_BACKLOG = 2_048


class _Server(uvicorn.Server):
    """uvicorn, which hangs up on those who still wait when it stops: a slow answer may be minutes away."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop."""
        for task in list(self.server_state.tasks):
            task.cancel()
        await super().shutdown(sockets)


class Sandbox:
    """A running stand-in: `with Sandbox(generate_seconds=0, render=False) as sandbox: … sandbox.url …`.

    Can be entered again after it was left: the same knobs, an empty book (or that of its state directory).

    Args:
        knobs: settings; they may be turned while it runs.
        host: address to listen on.
        port: 0 takes a free one.
        state: a directory to remember generations and videos in; None: all is forgotten.
        clock: seconds since the epoch.
        changes: single knobs by name, over `knobs`.

    Raises:
        pydantic.ValidationError: a knob is wrong.
        OSError: on entering: the port is taken, or the state directory cannot be used.
    """

    def __init__(
        self,
        knobs: Knobs | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        state: Path | None = None,
        clock: Clock = time.time,
        **changes: object,
    ) -> None:
        self.knobs = knobs or Knobs()
        for name, value in Knobs.model_validate(changes):
            if name in changes:
                setattr(self.knobs, name, value)
        self._host, self._port, self._state, self._clock = host, port, state, clock
        self._provider: Provider | None = None
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start; returns when it answers."""
        listener = socket.create_server((self._host, self._port), backlog=_BACKLOG)
        try:
            self._provider = Provider(self.knobs, state=self._state, clock=self._clock)
        except BaseException:
            listener.close()
            raise
        self._port = listener.getsockname()[1]
        self._server = _Server(
            uvicorn.Config(
                self._serve,
                interface="asgi3",
                http=OpenProtocol,
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=1,
            )
        )
        run = self._server.run
        self._thread = threading.Thread(target=run, args=([listener],), name="sandbox", daemon=True)
        self._thread.start()
        while not self._server.started:
            if not self._thread.is_alive():
                raise RuntimeError("the sandbox did not start")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; returns when its threads have ended, which may take as long as rendering one video."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._running(scope, receive, send)
        except asyncio.CancelledError:
            # Only a stopping server cancels; to uvicorn, a cancelled application is a broken one.
            await Reset()(scope, receive, send)

    @property
    def url(self) -> str:
        """Base URL, without a slash at the end."""
        return f"http://{self._host}:{self._port}"

    @property
    def counters(self) -> Counters:
        """What reached it, and what it billed."""
        return self._running.counters

    @property
    def book(self) -> Book:
        """All generations, and the balance."""
        return self._running.book

    @property
    def _running(self) -> Provider:
        if self._provider is None:
            raise RuntimeError("the sandbox has not been started")
        return self._provider

"""Which Prefect server a command runs in: the configured one, else that of `effects up`, else a temporary one.

A temporary server keeps its runs in Prefect's own database, so that a later `prefect server start` shows them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from deployments.stack import running_stack
from tasks.errors import EffectsError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from tasks.errors import JobState

T = TypeVar("T")

START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 10.0
SETTLE_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 10.0

QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The terminal is ours; everything that Prefect logs still reaches its dashboard.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "effects",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}

LEAN = {
    # Written in batches, task runs cost the server a quarter of the time.
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
}


class ServerTrouble(EffectsError):  # noqa: N818
    """Prefect's server does not start or does not answer."""

    next_move = "see what `prefect server start` says"


class ServerLost(ServerTrouble):
    """Prefect's server went away during a run; the ledger knows how far that came."""

    next_move = "start it again, then run `effects resume`: what was paid for is not paid for again"

    @property
    def state(self) -> JobState:
        """Nobody can tell from here that nothing was sent."""
        return "open"


def quieten() -> None:
    """Set what must be in the environment before Prefect is imported; what a person has set wins."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


class Server:
    """A Prefect server to run in: `api_url`, and `dashboard` for people. Temporary ones start in the background."""

    def __init__(self, api_url: str, process: subprocess.Popen[bytes] | None = None) -> None:
        self.api_url = api_url
        self._process = process
        self._started = datetime.now(UTC).isoformat()

    @property
    def dashboard(self) -> str:
        """Where a person looks."""
        return self.api_url.removesuffix("/api")

    @property
    def temporary(self) -> bool:
        """Whether it ends with the command."""
        return self._process is not None

    def wait(self) -> None:
        """Wait until it answers (blocking).

        Raises:
            ServerTrouble: when it does not.
        """
        give_up = time.monotonic() + (START_TIMEOUT_S if self._process else ANSWER_TIMEOUT_S)
        while time.monotonic() < give_up:
            if self._process and self._process.poll() is not None:
                raise ServerTrouble(f"the Prefect server ended with code {self._process.returncode}")
            try:
                if httpx.get(f"{self.api_url}/health", timeout=5.0).is_success:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.1)
        raise ServerTrouble(f"the Prefect server at {self.api_url} does not answer")

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run flows in it (blocking), from when it answers until all that they said is handed over.

        Raises:
            ServerTrouble: when it does not answer; nothing was begun.
            ServerLost: when it went away meanwhile, and Prefect's client had no more patience.
        """
        self.wait()
        try:
            return asyncio.run(work())
        except httpx.HTTPError as error:  # the steps have names for theirs: this is Prefect's client
            _drop_what_was_not_handed_over()
            raise ServerLost(f"the Prefect server at {self.api_url} went away during the run: {error}") from error
        finally:
            self.settle()  # also on Ctrl-C: what is told to a server that is gone is tried for a minute

    def settle(self) -> None:
        """Hand over every log line and event, and wait until a temporary server has written them down."""
        from prefect.events.worker import EventsWorker  # noqa: PLC0415 - after `quieten`
        from prefect.logging.handlers import APILogWorker  # noqa: PLC0415

        EventsWorker.drain_all(timeout=SETTLE_TIMEOUT_S)
        APILogWorker.drain_all(timeout=SETTLE_TIMEOUT_S)
        give_up = time.monotonic() + SETTLE_TIMEOUT_S
        unfinished = {
            "state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED"]}},
            "start_time": {"after_": self._started},
        }
        while self.temporary and time.monotonic() < give_up:
            try:
                answer = httpx.post(f"{self.api_url}/task_runs/count", json={"task_runs": unfinished}, timeout=5.0)
                if answer.is_success and answer.json() == 0:
                    return
            except (httpx.HTTPError, ValueError):
                return  # a courtesy to who looks later: it must not take the result away
            time.sleep(0.2)

    def stop(self) -> None:
        """Stop a temporary server: closing its standard input is the sign."""
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@contextmanager
def prefect_server() -> Iterator[Server]:
    """The server for this command; Prefect's client is pointed at it for the time of the context."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings  # noqa: PLC0415 - after `quieten`

    found = PREFECT_API_URL.value() or running_stack(PREFECT_HOME.value())
    server = Server(found) if found else _start()
    try:
        with temporary_settings({PREFECT_API_URL: server.api_url}):
            yield server
    finally:
        server.stop()


def _drop_what_was_not_handed_over() -> None:
    """Else Prefect tries to reconnect for seven seconds for each event and log line, before the process may end."""
    from prefect.events.worker import EventsWorker  # noqa: PLC0415 - after `quieten`
    from prefect.logging.handlers import APILogWorker  # noqa: PLC0415

    for service in (EventsWorker, APILogWorker):
        # Prefect has no public way; should it change its mind about these names, the process ends later, that is all.
        for instance in tuple(getattr(service, "_instances", {}).values()):
            with contextlib.suppress(AttributeError, queue.Empty):
                while True:
                    instance._queue.get_nowait()  # noqa: SLF001
                    instance._queue.task_done()  # noqa: SLF001


def server_environment(port: int) -> dict[str, str]:
    """The environment of a server of ours on this port; its dashboard asks there and nowhere else."""
    return {**os.environ, **LEAN, "PREFECT_UI_API_URL": f"http://127.0.0.1:{port}/api"}


def _start() -> Server:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "deployments.server", "--port", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=server_environment(port),
        start_new_session=True,  # Ctrl-C is for the command, which then ends its server
    )
    return Server(f"http://127.0.0.1:{port}/api", process)


def main() -> None:
    """Serve until standard input closes, which it does however the command that started this ends."""
    import uvicorn  # noqa: PLC0415 - only the server's process pays for these
    from prefect.server.api.server import create_app  # noqa: PLC0415

    from deployments.turns import take_turns  # noqa: PLC0415

    parser = argparse.ArgumentParser()
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int)
    where.add_argument("--listener", type=int, help="a socket that listens already, as an inherited descriptor")
    options = parser.parse_args()
    take_turns()
    config = uvicorn.Config(
        create_app(),
        host="127.0.0.1",
        port=options.port or 0,
        log_level="error",
        timeout_graceful_shutdown=3,
        ws_per_message_deflate=False,  # every event comes that way, and from this machine: it saves nothing but time
    )
    server = uvicorn.Server(config)
    listeners = None if options.listener is None else [socket.socket(fileno=options.listener)]

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass  # nobody writes to it
        server.should_exit = True

    threading.Thread(target=watch, daemon=True).start()
    server.run(listeners)


if __name__ == "__main__":
    main()

"""`effects up`: everything on this machine: Prefect's server and dashboard, the deployments, the watched inbox.

One process starts the others and looks after them. One that dies is started again, since nobody sits beside a photo
booth; one that dies again and again stops the stack, with a line that says which. However this process ends, the
others end with it: their standard input closes.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import httpx

from deployments.arrangement import Arrangement
from deployments.part import READY, Part
from deployments.sandbox.server import Sandbox
from deployments.server import quieten, server_environment
from deployments.stack import running_stack, take_place
from tasks.answers import one_line
from tasks.errors import BadInput, EffectsError
from tasks.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from deployments.stack import Place

PORT = 4200
"""Prefect's own: where people expect the dashboard."""

BACKLOG = 2048
"""Clients that wait while the server starts again."""

LOG = "effects-up.log"
LONGEST_LOG = 5_000_000

SANDBOX = "effects-sandbox"
"""Its books, in Prefect's home: what was paid for before a restart is there after it."""

LOOK_S = 0.1
START_S = 120.0
END_S = 15.0

SERVER = {
    # In memory, a restart of the server would leave the slots of the runs under way taken for ever.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}

RUNS = {
    # A run that hangs is found by the beat that is missing; one whose process died is seen at once.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
}


class AlreadyUp(EffectsError):  # noqa: N818
    """There is a stack on this machine already."""

    next_move = "use that one, or stop it first"


class PortTaken(EffectsError):  # noqa: N818
    """The port that was asked for cannot be had."""

    next_move = "choose another with --port"


class PartBroken(EffectsError):  # noqa: N818
    """A part of the stack does not start, or dies again and again."""

    next_move = "see what its log says"


class _Stopped(Exception):  # noqa: N818
    """Somebody asked it to stop before it was up."""


def up(changes: Mapping[str, object], *, port: int | None, as_json: bool) -> int:
    """Be up until Ctrl-C or SIGTERM; returns the exit code, 0.

    Args:
        changes: settings by name, over those of the environment; None where one is not given.
        port: the dashboard's; None takes Prefect's own, or a free one where that is taken.
        as_json: print where everything is as one JSON document; what happens goes to standard error then.

    Raises:
        BadInput: a setting does not fit, or this system cannot fork.
        AlreadyUp, PortTaken, PartBroken: by the next move.
    """
    if os.name != "posix":
        raise BadInput("`effects up` needs Linux or macOS")
    Arrangement.of(load_settings(**changes))
    quieten()
    from prefect.settings import PREFECT_HOME  # noqa: PLC0415 - after `quieten`

    home = PREFECT_HOME.value()
    with ExitStack() as ends:
        try:
            place = ends.enter_context(take_place(home))
        except OSError as error:
            raise BadInput(f"PREFECT_HOME {home} cannot be written: {os.strerror(error.errno or 0)}") from None
        if place is None:
            where = (running_stack(home) or "it is just starting").removesuffix("/api")
            raise AlreadyUp(f"`effects up` runs already: {where}")
        Up(home, changes, ends, as_json=as_json).run(place, port)
    return 0


class Up:
    """One stack, from its start to its end.

    Args:
        home: Prefect's.
        changes: settings by name.
        ends: ends what was started, in reverse.
    """

    def __init__(self, home: Path, changes: Mapping[str, object], ends: ExitStack, *, as_json: bool) -> None:
        self._home, self._changes, self._ends, self._as_json = home, changes, ends, as_json
        self._log = home / LOG
        if self._log.exists() and self._log.stat().st_size > LONGEST_LOG:
            self._log.unlink()
        self._parts: list[Part] = []
        self._stop, self._ready, self._listening = threading.Event(), threading.Event(), threading.Event()

    def run(self, place: Place, port: int | None) -> None:
        """Start part by part, each when the one before it answers; then look after them until asked to stop."""
        self._ends.enter_context(self._asked_by_signals())
        try:
            listener = self._ends.enter_context(self._listener(port))
            api_url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
            server = self._start_server(listener)
            self._until(lambda: _answers(api_url), "the Prefect server")
            arranged = self._arrange(api_url)
            environment = {**RUNS, **os.environ, **arranged.environment, "PREFECT_API_URL": api_url}
            self._start_runner(environment, server)
            self._until(self._ready.is_set, "the runner")
            if sources := arranged.sources:
                self._start_listener(environment, sources)
                self._until(self._listening.is_set, "the upload listener")
            place.tell(api_url)
            self._welcome(api_url, arranged)
            self._until(lambda: False, "the end", within_s=float("inf"))
        except _Stopped:
            self._say("stopping; what is under way goes on at the next start")

    @contextmanager
    def _asked_by_signals(self) -> Iterator[None]:
        """Once to stop in order, twice to stop at once; a closed terminal counts."""

        def asked(*_: object) -> None:
            if self._stop.is_set():
                for part in self._parts:
                    part.kill()
                raise KeyboardInterrupt
            self._stop.set()

        numbers = [
            number
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
            if signal.getsignal(number) is not signal.SIG_IGN  # nohup, and a shell's background
        ]
        before = {number: signal.signal(number, asked) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _listener(self, port: int | None) -> socket.socket:
        """Held for as long as the stack: while its server starts again, clients wait in place of being turned away."""
        try:
            return socket.create_server(("127.0.0.1", PORT if port is None else port), backlog=BACKLOG)
        except OSError as error:
            if port is not None:
                raise PortTaken(f"port {port} cannot be had: {os.strerror(error.errno or 0)}") from None
        listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self._say(f"port {PORT} is taken by something else: the dashboard takes {listener.getsockname()[1]}")
        return listener

    def _start_server(self, listener: socket.socket) -> Part:
        environment = {**server_environment(listener.getsockname()[1]), **SERVER}
        fd = listener.fileno()
        command = ["deployments.server", "--listener", str(fd)]
        return self._keep(Part("the Prefect server", command, environment, log=self._log, inherited=[fd]))

    def _start_runner(self, environment: Mapping[str, str], server: Part) -> None:
        command = ["deployments.tether", "deployments.runner"]
        # However the stack ends, the server is there until the runner has put back what is under way.
        held = [server.lifeline]
        self._keep(Part("the runner", command, environment, log=self._log, heard=self._run_told, inherited=held))

    def _start_listener(self, environment: Mapping[str, str], sources: Sequence[str]) -> None:
        command = ["deployments.tether", "deployments.uploads.__main__", *sources]
        self._keep(Part("the upload listener", command, environment, log=self._log, heard=self._bell, errors=True))

    def _keep(self, part: Part) -> Part:
        """Look after a part from here on."""
        self._parts.append(part)
        self._ends.callback(part.end, END_S)
        self._say(f"starting {part.name}")
        return part

    def _until(self, there: Callable[[], bool], what: str, *, within_s: float = START_S) -> None:
        """Wait, and start again what dies meanwhile.

        Raises:
            _Stopped: somebody asked to stop.
            PartBroken: it takes too long, or a part dies again and again.
        """
        give_up = time.monotonic() + within_s
        while not there():
            if self._stop.wait(LOOK_S):
                raise _Stopped
            if time.monotonic() > give_up:
                raise PartBroken(f"{what} is not there after {within_s:.0f} s; {self._last_words()}")
            for part in self._parts:
                if part.ended and part.worn_out:
                    raise PartBroken(f"{part.name} ends again and again; {self._last_words()}")
                if part.ended:
                    self._say(f"{part.name} ended with code {part.process.returncode}: it is started again")
                    part.start()

    def _arrange(self, api_url: str) -> Arrangement:
        """What the block on the server says counts, too; the sandbox is started where nobody gave a key."""
        from prefect.settings import PREFECT_API_URL, temporary_settings  # noqa: PLC0415 - after `quieten`

        from flows.configuration import configured  # noqa: PLC0415

        try:
            with temporary_settings({PREFECT_API_URL: api_url}):
                arranged = Arrangement.of(asyncio.run(configured(**self._changes)))
        except httpx.HTTPError as error:
            raise PartBroken(f"the Prefect server does not say what its block holds: {error}") from error
        arranged.make_folders()
        if not arranged.sandboxed:
            return arranged
        books = self._home / SANDBOX
        try:
            sandbox = self._ends.enter_context(Sandbox(state=books, generate_seconds=4.0, balance_usd=10_000.0))
        except (OSError, ValueError) as error:
            raise PartBroken(f"the sandbox cannot use {books}: {one_line(error)}") from error
        return arranged.saying({"api_url": sandbox.url})

    def _welcome(self, api_url: str, arranged: Arrangement) -> None:
        """Say where everything is."""
        dashboard, settings = api_url.removesuffix("/api"), arranged.settings
        if self._as_json:
            document = {"dashboard": dashboard, "inbox": settings.inbox, "target": settings.target}
            sys.stdout.write(json.dumps({**document, "provider": settings.api_url}) + "\n")
        else:
            lines = [f"Dashboard  {dashboard}", *arranged.lines()]
            lines += ["Ctrl-C     stops it; what is under way goes on at the next start"]
            if elsewhere := os.environ.get("PREFECT_API_URL"):
                lines += [f"Commands   in other terminals run in {elsewhere} where PREFECT_API_URL says so, not here"]
            sys.stdout.write("\n".join(["", *lines, "", ""]))
        sys.stdout.flush()

    def _run_told(self, line: str) -> None:
        """A line of the runner's."""
        if line == READY:
            self._ready.set()
        else:
            self._say(line)

    def _bell(self, line: str) -> None:
        """A line of the upload listener's log."""
        if " INFO " in line:
            self._listening.set()  # the first that it says is that it listens
        else:
            self._say(line.partition(": ")[2] or line)

    def _say(self, line: str) -> None:
        stream = sys.stderr if self._as_json else sys.stdout
        with contextlib.suppress(OSError):  # the terminal may be gone: the stack goes on
            stream.write(f"{datetime.now():%H:%M:%S} {line}\n")  # noqa: DTZ005 - for who sits before it
            stream.flush()

    def _last_words(self) -> str:
        """The end of the log, for a line that says where it is."""
        words = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
        return f"{self._log}" + (f" ends with: {words[0].strip()}" if words else " is empty")


def _answers(api_url: str) -> bool:
    try:
        return httpx.get(f"{api_url}/health", timeout=2.0).is_success
    except httpx.HTTPError:
        return False

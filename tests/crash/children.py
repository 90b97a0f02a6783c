"""Child processes that can be killed for real."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

HOUSE = Path(__file__).parents[2]


class Child:
    """A process of our own modules; its standard output is read line by line."""

    def __init__(self, module: str, *arguments: str, **variables: str) -> None:
        self._log = Path(f"child-{time.monotonic_ns()}.log").open("w+", encoding="utf-8")  # noqa: SIM115 - until `end`
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HOUSE), **variables},
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def line(self, timeout_s: float = 30.0) -> str:
        """The next line of its output."""
        try:
            return self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise AssertionError(f"no line in {timeout_s:g} s; it said:\n{self.errors}") from None

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def kill(self) -> int:
        """SIGKILL: nothing in it gets to tidy up. Returns what the system says of its end."""
        assert self.process.poll() is None, f"it ended by itself:\n{self.errors}"
        os.kill(self.process.pid, signal.SIGKILL)
        return self.process.wait(10)

    def wait(self, timeout_s: float = 40.0) -> int:
        """Wait for its end; returns its exit code."""
        return self.process.wait(timeout_s)

    @property
    def errors(self) -> str:
        """What it wrote on standard error so far."""
        return Path(self._log.name).read_text(encoding="utf-8")

    def end(self) -> None:
        """Whatever became of the test."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._log.close()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))


Start = Callable[..., Child]


@contextmanager
def children() -> Iterator[Start]:
    """Start children: `start(module, *arguments, **environment)`. None outlives the context."""
    started: list[Child] = []

    def start(module: str, *arguments: str, **variables: str) -> Child:
        started.append(Child(module, *arguments, **variables))
        return started[-1]

    try:
        yield start
    finally:
        for child in started:
            child.end()


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Poll, since what is awaited happens in another process."""
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, "it did not happen in time"
        time.sleep(0.02)

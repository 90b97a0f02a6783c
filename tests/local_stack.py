"""A real `effects up` in a folder of its own, as the tests and the benchmark handle it."""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOUSE = Path(__file__).parents[1]
LEFT, RIGHT = (HOUSE / "deployments" / "photos" / name for name in ("collins.jpg", "hopper.jpg"))
START_S = 90.0
SWEEPS = 2
"""Runs that a start begins with: of the inbox, and of what is open."""


class LocalStack:
    """One folder with Prefect's home, inbox and target in it; `start` and `stop` as often as wanted.

    Attributes:
        said: the JSON document of the latest start: dashboard, inbox, target, provider.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "prefect"
        self.inbox, self.target = folder / "inbox", folder / "sandbox-videos"
        self.said: dict[str, str] = {}
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "EFFECTS_"))}
        self.environment = {
            **clean,
            "PYTHONPATH": str(HOUSE),
            "PREFECT_HOME": str(self.home),
            "EFFECTS_POLL_INTERVAL_S": "0.3",
        }
        self._process: subprocess.Popen[str] | None = None

    def effects(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        """Start an `effects` command there."""
        return subprocess.Popen(
            [sys.executable, "-m", "deployments.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**self.environment, **variables},
        )

    def start(self, *options: str) -> None:
        """Start the stack; returns when it says that it is up."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._process = self.effects("up", "--json", "--port", "0", *options)
        self._lines: list[str] = []
        said: queue.Queue[str] = queue.Queue()
        for stream, take in ((self._process.stdout, said.put), (self._process.stderr, self._lines.append)):
            threading.Thread(target=_read, args=(stream, take), daemon=True).start()
        try:
            self.said = json.loads(said.get(timeout=START_S))
        except queue.Empty:
            raise AssertionError(f"it is not up: {self.told}{self.log}") from None

    def rest(self) -> None:
        """Wait until the sweeps are over that a start begins with: what is dropped now is the upload's own run's."""
        eventually(lambda: sum(run["state_type"] == "COMPLETED" for run in self.runs()) >= SWEEPS, self)

    @property
    def told(self) -> str:
        """What it told on standard error since its latest start."""
        return "".join(self._lines)

    @property
    def log(self) -> str:
        """What its parts wrote."""
        path = self.home / "effects-up.log"
        return path.read_text() if path.exists() else ""

    @property
    def pid(self) -> int:
        """Of the process that was started."""
        assert self._process
        return self._process.pid

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it; returns its exit code once it has ended."""
        assert self._process
        self._process.send_signal(number)
        return self._process.wait(40)

    def processes(self) -> dict[int, str]:
        """Every process of it that there is, also those that the first one has lost, with their command lines."""
        mark, found = f"PREFECT_HOME={self.home}".encode(), {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (path / "environ").read_bytes().split(b"\0"):
                    found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has ended, or is somebody else's
        return found

    def one(self, words: str) -> int:
        """The process whose command line has these words, and that no other such process has started."""
        found = [pid for pid, command in self.processes().items() if words in command]
        assert found, self.processes()
        return min(found)

    def api(self, path: str, body: object | None = None) -> Any:  # noqa: ANN401 - JSON
        """Ask its server: GET, or POST where there is a body."""
        url = f"{self.said['dashboard']}/api{path}"
        answer = httpx.get(url, timeout=30) if body is None else httpx.post(url, json=body, timeout=30)
        return answer.raise_for_status().json()

    def runs(self) -> list[dict[str, Any]]:
        """All flow runs but those that are not due yet, latest first."""
        runs = self.api("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_DESC"})
        return [run for run in runs if run["start_time"]]

    def counters(self) -> dict[str, Any]:
        """The sandbox's."""
        counters: dict[str, Any] = httpx.get(f"{self.said['provider']}/sandbox/counters").json()
        return counters

    def turn(self, **knobs: float) -> None:
        """Turn the sandbox's knobs."""
        httpx.post(f"{self.said['provider']}/sandbox/knobs", json=knobs).raise_for_status()

    def drop(self, name: str, take: int = 0) -> None:
        """Put two photos into the inbox, as a person would; another take of them where that is said."""
        folder = self.inbox / "hug" / name
        folder.mkdir(parents=True)
        if take:
            (folder / "job.json").write_text(json.dumps({"take": take}))
        shutil.copyfile(LEFT, folder / "1.jpg")
        shutil.copyfile(RIGHT, folder / "2.jpg")

    def videos(self) -> list[Path]:
        """Those that are there and done."""
        return [path.with_name("video.mp4") for path in self.target.glob("*/*/metadata.json")]


def eventually(there: Callable[[], bool], stack: LocalStack, timeout_s: float = 60.0) -> None:
    """Wait for what happens in other processes."""
    give_up = time.monotonic() + timeout_s
    while not there():
        assert time.monotonic() < give_up, f"it did not happen in time:\n{stack.told}\n{stack.log}"
        time.sleep(0.1)


@contextmanager
def local_stack(folder: Path) -> Iterator[LocalStack]:
    """A stack that does not outlive the context."""
    stack = LocalStack(folder)
    try:
        yield stack
    finally:
        for pid in stack.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _read(stream: Any, take: Callable[[str], None]) -> None:  # noqa: ANN401 - a pipe
    for line in stream:
        take(line)

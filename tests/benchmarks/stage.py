"""What every benchmark stands on: a Prefect server, and processes whose time and memory are counted (Linux)."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import httpx
from PIL import Image

from deployments.server import LEAN, QUIET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

HOUSE = Path(__file__).parents[2]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PHOTO_SIDE = 320
SETTLE_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Ran:
    """A process that has ended.

    Attributes:
        said: its JSON document.
        cpu_s: user and system time.
        peak_mb: the most memory that it held at once.
        wall_s: from its start to its end.
    """

    said: Any
    cpu_s: float
    peak_mb: float
    wall_s: float


def environment(**variables: str) -> dict[str, str]:
    """For processes of our own modules, wherever they are started; no setting of whoever measures reaches them."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("EFFECTS_", "PREFECT_"))}
    return {**inherited, "PYTHONPATH": str(HOUSE), **QUIET, **variables}


def run(module: str, *arguments: object, **variables: str) -> Ran:
    """Run one of our modules to its end.

    Raises:
        RuntimeError: it failed; what it wrote last stands in the message.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            stdout=said,
            stderr=errors,
            env=environment(**variables),
        )
        _, status, usage = os.wait4(process.pid, 0)  # `Popen.wait` would throw the usage away
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{module} ended with {process.returncode}: {errors.read().decode()[-2000:]}")
        document = json.loads(said.read() or "null")
    return Ran(document, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, time.monotonic() - started)


class PrefectServer:
    """A Prefect server of its own, with its own database.

    Attributes:
        api_url: for PREFECT_API_URL.
    """

    def __init__(self, process: subprocess.Popen[bytes], api_url: str) -> None:
        self._pid, self.api_url = process.pid, api_url

    def cpu_s(self) -> float:
        """User and system time so far."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def settle(self) -> int:
        """Wait until all task runs that it was told of are written down; returns how many there are in all."""
        before, give_up = -1, time.monotonic() + SETTLE_TIMEOUT_S
        while time.monotonic() < give_up:
            count = self._count()
            if count == before and not self._count(["RUNNING", "PENDING", "SCHEDULED"]):
                return count
            before = count
            time.sleep(2)
        raise RuntimeError("the server did not come to rest")

    def _count(self, types: Sequence[str] = ()) -> int:
        wanted = {"task_runs": {"state": {"type": {"any_": types}}}} if types else {}
        answer = httpx.post(f"{self.api_url}/task_runs/count", json=wanted, timeout=60)
        return int(answer.raise_for_status().json())


@contextmanager
def prefect(home: Path) -> Iterator[PrefectServer]:
    """A Prefect server with the settings of the local stack."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "deployments.server", "--port", str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment(PREFECT_HOME=str(home), **LEAN),
    )
    server = PrefectServer(process, f"http://127.0.0.1:{port}/api")
    try:
        for _ in range(1200):
            try:
                if httpx.get(f"{server.api_url}/health", timeout=5).is_success:
                    break
            except httpx.HTTPError:
                time.sleep(0.1)
        else:
            raise RuntimeError("the Prefect server did not start")
        yield server
    finally:
        assert process.stdin
        process.stdin.close()
        process.wait(60)


def photo(folder: Path) -> Path:
    """A small photo: what is measured is the orchestration, not the decoding of JPEGs."""
    path = folder / "photo.jpg"
    Image.effect_noise((PHOTO_SIDE, PHOTO_SIDE), 40).convert("RGB").save(path, "JPEG", quality=60)
    return path


def manifest(folder: Path, jobs: int, image: Path) -> Path:
    """So many different jobs of one photo."""
    path = folder / f"{jobs}.jsonl"
    rows = ({"effect": "squish", "images": [str(image)], "take": take, "name": f"cat {take}"} for take in range(jobs))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """Minimum, median and maximum."""
    return " / ".join(format(value, form) for value in (min(values), median(values), max(values)))

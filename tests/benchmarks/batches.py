"""What orchestration costs: a batch through the pipeline against the bare script, on the same sandbox, in one run.

Generations take 15 s in the median (log-normal, sigma 0.3), and the bare script looks once a second: ten times the
pressure of real ones, which take ten times as long. Nothing is rendered, and photo and videos are small.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from deployments.sandbox.server import Sandbox
from tests.benchmarks.stage import PrefectServer, Ran, manifest, photo, prefect, run, spread

if TYPE_CHECKING:
    from collections.abc import Iterable

JOBS = (100, 500, 1000)
ROUNDS = 3
WARM_UP = 100
"""Jobs made before, with a look a second, so that the target knows how long a generation takes: what is expected
without a history are real generations."""

INTERVAL_S = 1.0
MEDIAN_S, SIGMA = 15.0, 0.3


@dataclass(frozen=True)
class Figures:
    """One batch, made in one way.

    Attributes:
        wall_s: from when its loop began to its end.
        worker_s: CPU time of its process, start and imports included.
        server_s: CPU time that the Prefect server took over it.
        looks: per job.
        late_s: mean time that a finished video waited for being seen.
    """

    wall_s: float
    worker_s: float
    server_s: float
    looks: float
    late_s: float
    peak_mb: float

    @property
    def cpu_s(self) -> float:
        """All of it."""
        return self.worker_s + self.server_s


def measure(jobs: int, server: PrefectServer, folder: Path, seed: int) -> tuple[Figures, Figures]:
    """The bare script and the pipeline, one after the other; generations take the same times for both."""
    return _bare(jobs, folder, seed), _piped(jobs, server, folder, seed)


def _sandbox(seed: int) -> Sandbox:
    return Sandbox(render=False, fetch_images=False, generate_seconds=MEDIAN_S, sigma=SIGMA, balance_usd=1e6, seed=seed)


def _bare(jobs: int, folder: Path, seed: int) -> Figures:
    with _sandbox(seed) as sandbox, tempfile.TemporaryDirectory(dir=folder) as videos:
        ran = run("tests.benchmarks.bare", jobs, photo(folder), videos, INTERVAL_S, **_settings(sandbox))
        return _figures(jobs, ran, 0.0, sandbox, ran.said["seen"])


def _piped(jobs: int, server: PrefectServer, folder: Path, seed: int, **more: str) -> Figures:
    target, before = folder / "target", server.cpu_s()
    with _sandbox(seed) as sandbox:
        variables = {
            **_settings(sandbox),
            "EFFECTS_TARGET": str(target),
            "EFFECTS_DELIVERY": "inline",
            "EFFECTS_MAX_IN_FLIGHT": str(jobs),
            "PREFECT_API_URL": server.api_url,
            **more,
        }
        ran = run("tests.benchmarks.piped", manifest(folder, jobs, photo(folder)), **variables)
        if ran.said["counts"] != {"completed": jobs}:
            raise RuntimeError(f"not all were completed: {ran.said['counts']}")
        server.settle()
        records = [json.loads(path.read_bytes()) for path in target.glob("*/*/metadata.json")]
        shutil.rmtree(target / "squish")  # the videos; what was learned of how long they take stays
        return _figures(jobs, ran, server.cpu_s() - before, sandbox, _seen(records))


def _seen(records: Iterable[dict[str, str]]) -> dict[str, float]:
    from datetime import datetime  # noqa: PLC0415

    return {record["generation_id"]: datetime.fromisoformat(record["seen_at"]).timestamp() for record in records}


def _settings(sandbox: Sandbox) -> dict[str, str]:
    return {"EFFECTS_API_URL": sandbox.url, "EFFECTS_API_KEY": "sandbox"}


def _figures(jobs: int, ran: Ran, server_s: float, sandbox: Sandbox, seen: dict[str, float]) -> Figures:
    late = [seen[generation.id] - generation.ready_at for generation in sandbox.book]
    if len(late) != jobs:
        raise RuntimeError(f"{len(late)} generations for {jobs} jobs")
    return Figures(ran.said["wall_s"], ran.cpu_s, server_s, sandbox.counters.looks / jobs, mean(late), ran.peak_mb)


def main(rounds: int = ROUNDS, sizes: tuple[int, ...] = JOBS) -> None:
    """Print the table; each cell minimum / median / maximum of the rounds."""
    say = sys.stdout.write
    say("pipeline / bare script\n")
    say(f"{'in flight':>9}  {'wall':>20}  {'worker CPU':>20}  {'worker+server CPU':>20}  looks a job  late, s  MB\n")
    with tempfile.TemporaryDirectory() as scratch, prefect(Path(scratch) / "prefect") as server:
        _piped(WARM_UP, server, Path(scratch), seed=1000, EFFECTS_POLL_INTERVAL_S=str(INTERVAL_S))
        for jobs in sizes:
            pairs = [measure(jobs, server, Path(scratch), seed) for seed in range(rounds)]
            cells = [
                spread([ours.wall_s / bare.wall_s for bare, ours in pairs]),
                spread([ours.worker_s / bare.worker_s for bare, ours in pairs]),
                spread([ours.cpu_s / bare.cpu_s for bare, ours in pairs]),
            ]
            bare, ours = pairs[len(pairs) // 2]
            say(
                f"{jobs:>9}  {cells[0]:>20}  {cells[1]:>20}  {cells[2]:>20}"
                f"  {ours.looks:.1f} : {bare.looks:.1f}  {ours.late_s:.2f} : {bare.late_s:.2f}"
                f"  {ours.peak_mb:.0f} : {bare.peak_mb:.0f}"
                f"   ({bare.wall_s:.0f} s, {1000 * bare.cpu_s / jobs:.0f} ms CPU a job;"
                f" {ours.wall_s:.0f} s, {1000 * ours.worker_s / jobs:.0f} + {1000 * ours.server_s / jobs:.0f} ms)\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    main(arguments[0] if arguments else ROUNDS, tuple(arguments[1:]) or JOBS)

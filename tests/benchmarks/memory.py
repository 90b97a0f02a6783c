"""What a flow run holds: the peak memory of a batch of 1,000 jobs against that of 10,000, so many in flight in both.

Generations take next to no time and no pause lies between two looks: it is the number of jobs that is measured.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from deployments.sandbox.server import Sandbox
from tests.benchmarks.stage import PrefectServer, Ran, manifest, photo, prefect, run

FEW, MANY = 1_000, 10_000
IN_FLIGHT = 50


def measure(jobs: int, server: PrefectServer, folder: Path) -> tuple[Ran, int]:
    """One batch; and how many task runs the server holds of it when it has come to rest."""
    target = folder / "target"
    before = server.settle()
    with Sandbox(render=False, fetch_images=False, generate_seconds=0.5, balance_usd=1e6) as sandbox:
        variables = {
            "EFFECTS_API_URL": sandbox.url,
            "EFFECTS_API_KEY": "sandbox",
            "EFFECTS_TARGET": str(target),
            "EFFECTS_DELIVERY": "inline",
            "EFFECTS_MAX_IN_FLIGHT": str(IN_FLIGHT),
            "EFFECTS_POLL_INTERVAL_S": "1",
            "PREFECT_API_URL": server.api_url,
        }
        ran = run("tests.benchmarks.piped", manifest(folder, jobs, photo(folder)), **variables)
        billed = sandbox.counters.billed
    shutil.rmtree(target)
    if ran.said["counts"] != {"completed": jobs} or billed != jobs:
        raise RuntimeError(f"{jobs} jobs came to {ran.said['counts']}, {billed} billed")
    return ran, server.settle() - before


def main(few: int = FEW, many: int = MANY) -> None:
    """Print the table."""
    say = sys.stdout.write
    say("    jobs  peak MB     ratio  ms CPU a job  wall, s  task runs in the dashboard, of\n")
    with tempfile.TemporaryDirectory() as scratch, prefect(Path(scratch) / "prefect") as server:
        first = 0.0
        for jobs in (few, many):
            ran, shown = measure(jobs, server, Path(scratch))
            first = first or ran.peak_mb
            say(
                f"{jobs:>8}  {ran.peak_mb:>7.0f}  {ran.peak_mb / first:>8.2f}  {1000 * ran.cpu_s / jobs:>12.0f}"
                f"  {ran.said['wall_s']:>7.0f}  {shown} of {5 * jobs}\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

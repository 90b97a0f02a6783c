"""The crash suite on demand: `uv run python -m tests.crash --schedules 20000`, `--mutations`, `--seed N`."""

from __future__ import annotations

import argparse
import sys

from tests.crash.schedule import random_schedule
from tests.crash.suite import as_table, dying_tally, mutation_table, random_tally


def main() -> int:
    """Run schedules, print the table; 1 where a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--schedules", type=int, default=2000, metavar="N", help="random schedules (default 2000)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="N")
    parser.add_argument("--pairs", type=int, default=600, metavar="N", help="pairs of deaths (default 600)")
    parser.add_argument("--seed", type=int, metavar="N", help="replay one schedule and show what it broke")
    parser.add_argument("--mutations", action="store_true", help="break each rule once, and show what notices")
    options = parser.parse_args()
    if options.seed is not None:
        report = random_schedule(options.seed)
        sys.stdout.write("\n".join([str(report), *report.violations]) + "\n")
        return 1 if report.violations else 0
    if options.mutations:
        table = mutation_table(options.schedules)
        for name, noticed in table.items():
            sys.stdout.write(f"{name:<30} {noticed or 'NOT NOTICED'}\n")
        return 0 if all(table.values()) else 1
    tallies = [dying_tally(options.pairs), random_tally(options.first_seed, options.schedules)]
    sys.stdout.write(as_table(tallies) + "\n")
    broken = [report for tally in tallies for report in tally.broken]
    for report in broken[:20]:
        sys.stdout.write(f"seed {report.seed}: {'; '.join(report.violations)}\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())

"""`uv run python -m tests.benchmarks [NAME…]`: all benchmarks, or those named, each with its table.

They take an hour in all on two cores. Ratios hold against what else the machine does; seconds do not.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time

NAMES = ("batches", "memory", "sweep", "startup", "trigger")


def main() -> None:
    """Run them one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Figures, as ratios.")
    parser.add_argument("name", nargs="*", choices=[[], *NAMES], help=", ".join(NAMES))
    names = parser.parse_args().name or NAMES
    del sys.argv[1:]  # each has options of its own, where it is started by itself
    for name in names:
        module = importlib.import_module(f"tests.benchmarks.{name}")
        sys.stdout.write(f"== {name}: {(module.__doc__ or '').partition(chr(10))[0]}\n")
        sys.stdout.flush()
        started = time.monotonic()
        module.main()
        sys.stdout.write(f"({time.monotonic() - started:.0f} s)\n\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

"""What a person waits for: the start of each command, against starting Python; and a dry run of 1,000 rows.

`effects generate` and `batch` are measured in a server that runs, on bad input and as dry runs: up to where money would
begin. The dry run of 1,000 rows is held against the bare minimum: to read and hash each row's photo, and to decode it.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from deployments.sandbox.server import Sandbox
from tests.benchmarks.stage import environment, manifest, photo, prefect, spread

ROUNDS = 5
ROWS = 1_000


def _took_s(*command: str, folder: Path, expect: int = 0, **variables: str) -> float:
    started = time.monotonic()
    ended = subprocess.run(command, env=environment(**variables), cwd=folder, capture_output=True, check=False)
    if ended.returncode != expect:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}: {ended.stderr.decode()[-1000:]}")
    return time.monotonic() - started


def main(rounds: int = ROUNDS, rows: int = ROWS) -> None:
    """Print the tables; minimum / median / maximum, in seconds and by the median start of Python."""
    effects = (sys.executable, "-m", "deployments.cli")
    with tempfile.TemporaryDirectory() as scratch, prefect(Path(scratch) / "prefect") as server, Sandbox() as sandbox:
        folder = Path(scratch)
        image = photo(folder)
        variables = {
            "EFFECTS_API_URL": sandbox.url,
            "EFFECTS_API_KEY": "sandbox",
            "EFFECTS_DELIVERY": "inline",
            "EFFECTS_TARGET": str(folder / "videos"),
            "PREFECT_API_URL": server.api_url,
        }
        (folder / "inbox").mkdir()
        commands: dict[str, tuple[tuple[str, ...], int]] = {
            "python -c pass": ((sys.executable, "-c", "pass"), 0),
            "effects --help": ((*effects, "--help"), 0),
            "effects effects": ((*effects, "effects"), 0),
            "effects status": ((*effects, "status"), 0),
            "effects doctor": ((*effects, "doctor"), 0),
            "effects resume (nothing open)": ((*effects, "resume"), 0),
            "effects inbox (nothing new)": ((*effects, "inbox", str(folder / "inbox")), 0),
            "effects generate --dry-run": ((*effects, "generate", "squish", str(image), "--dry-run"), 0),
            "effects generate (bad input)": ((*effects, "generate", "hug", str(image)), 2),
        }
        times = {
            name: [_took_s(*command, folder=folder, expect=expect, **variables) for _ in range(rounds)]
            for name, (command, expect) in commands.items()
        }
        python_s = sorted(times["python -c pass"])[rounds // 2]
        sys.stdout.write(f"{'command':<32}{'seconds':>20}{'x Python':>24}\n")
        for name, seconds in times.items():
            ratios = spread([second / python_s for second in seconds], ".1f")
            sys.stdout.write(f"{name:<32}{spread(seconds):>20}{ratios:>24}\n")
        _dry_run(rounds, rows, folder, image, variables)


def _dry_run(rounds: int, rows: int, folder: Path, image: Path, variables: dict[str, str]) -> None:
    listed = manifest(folder, rows, image)
    command = (sys.executable, "-m", "deployments.cli", "batch", str(listed), "--dry-run", "--json")
    ratios, seconds = [], []
    for _ in range(rounds):
        started = time.monotonic()
        for line in listed.read_text().splitlines():
            data = Path(json.loads(line)["images"][0]).read_bytes()
            hashlib.sha256(data).hexdigest()
            with Image.open(image) as picture:
                picture.load()
        bare_s = time.monotonic() - started
        seconds.append(_took_s(*command, folder=folder, expect=0, **variables))
        ratios.append(seconds[-1] / bare_s)
    sys.stdout.write(
        f"\ndry run of {rows} rows: {spread(seconds)} s, {spread(ratios, '.1f')} x reading, hashing and decoding\n"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

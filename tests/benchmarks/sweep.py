"""How much a sweep's looking costs over a bare listing of the same tree.

    uv run python -m tests.benchmarks.sweep [--rounds N] [--disk SIZE …] [--s3 SIZE …]

Measured is what a sweep does up to knowing what is to be done: the receipts, one look at the inbox, the ten uploads
that are new. Not measured are the ten videos, and what is the same for every run: its process, Prefect, the settings.
In each round it comes right after a bare `find` of fsspec over the same tree, without details and without caches, and
the ratio is of these two; their order changes from round to round. All but ten uploads have receipts, as many of them
single ones as there ever are before they are bundled.

A disk is measured in the two layouts that differ most: all files in one folder, where a listing is cheapest, and pairs
with a folder each. Over S3 it is a stand-in server (moto) on this machine, which takes far longer for a page of a
large bucket than a real store does: so the share of the sweep is smaller than it would be there, and 100,000 objects
are left to who asks for them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer
from rich.console import Console
from rich.table import Table

from tasks.effects import load_catalogue
from tasks.inbox import Inbox, Look
from tasks.jobs import Outcome
from tasks.receipts import BUNDLE_AT, Receipt, Receipts, bundle_of
from tasks.settings import load_settings
from tasks.storage import Storage, filesystem_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Put = Callable[[str], None]

SIZES = (1_000, 10_000, 100_000)
S3_SIZES = (1_000, 10_000)
ROUNDS = 5
NEW = 10
TARGET = 1.5
LONG_AGO = 1_700_000_000.0


@dataclass(frozen=True)
class Measured:
    """One size in one layout: seconds of each round."""

    where: str
    objects: int
    find_s: tuple[float, ...]
    sweep_s: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Sweep over bare listing, round by round."""
        return [sweep / find for find, sweep in zip(self.find_s, self.sweep_s, strict=True)]


def flat(objects: int) -> Iterator[str]:
    """Every file a job by itself, all in one folder."""
    return (f"squish/photo-{number:06}.jpg" for number in range(objects))


def pairs(objects: int) -> Iterator[str]:
    """A folder for every two."""
    return (f"hug/guests-{number // 2:06}/{number % 2 + 1}.jpg" for number in range(objects))


def measure(where: str, store: str, paths: Sequence[str], put: Put, rounds: int) -> Measured:
    """Fill an inbox, settle all of it but the new ones, and look at it round by round.

    Args:
        where: for the table.
        store: URL; the inbox is `in` below it, the target `out`.
        paths: of the files.
        put: makes the file of a path inside the inbox.
        rounds: how many.
    """
    for path in paths:
        put(path)
    settings = load_settings(inbox=f"{store}/in", target=f"{store}/out")
    inbox = Inbox(settings, load_catalogue())
    asyncio.run(_settle(inbox, Storage(settings.target)))

    async def sweep() -> Look:
        return await inbox.look(await Receipts(Storage(settings.target)).settled())

    def looked() -> None:
        look = asyncio.run(sweep())
        assert (len(look.ready), len(look.waiting)) == (NEW, 0)

    def found() -> None:
        filesystem, at = filesystem_of(f"{store}/in", use_listings_cache=False)
        assert len(filesystem.find(at)) == len(paths)

    found()  # once for the disk's own caches
    find_s, sweep_s = [], []
    for number in range(rounds):
        first, second = (found, looked) if number % 2 == 0 else (looked, found)
        seconds = {first: _seconds(first), second: _seconds(second)}
        find_s.append(seconds[found])
        sweep_s.append(seconds[looked])
    return Measured(where, len(paths), tuple(find_s), tuple(sweep_s))


async def _settle(inbox: Inbox, target: Storage) -> None:
    look = await inbox.look(())
    done = Outcome(state="completed", effect="squish", job_id="0" * 32)
    receipts = [Receipt.of(upload, done) for upload in look.ready[NEW:]]
    single, bundled = receipts[: BUNDLE_AT - 1], receipts[BUNDLE_AT - 1 :]
    for receipt in single:
        await Receipts(target).keep(receipt)
    if bundled:
        await target.write(*bundle_of({receipt.key: receipt.line for receipt in bundled}))


def _seconds(work: Callable[[], None]) -> float:
    gc.collect()  # what the round before left behind is not this one's
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def on_disk(objects: int, layout: Callable[[int], Iterator[str]], rounds: int) -> Measured:
    """A local folder."""
    with tempfile.TemporaryDirectory(prefix="effects-benchmark-") as store:

        def put(path: str) -> None:
            file = Path(store, "in", path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"photo")
            os.utime(file, (LONG_AGO, LONG_AGO))

        return measure(f"disk, {layout.__name__}", store, [*layout(objects)], put, rounds)


def over_s3(objects: int, layout: Callable[[int], Iterator[str]], rounds: int) -> Measured:
    """A new bucket of the stand-in server; what is uploaded goes past its sockets, which would take minutes."""
    bucket = f"bench-{time.time_ns()}"
    boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket=bucket)
    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]

    def put(path: str) -> None:
        backend.put_object(bucket, f"in/{path}", b"photo")

    return measure(f"S3 (moto), {layout.__name__}", f"s3://{bucket}", [*layout(objects)], put, rounds)


@contextlib.contextmanager
def _s3_server() -> Iterator[None]:
    """A stand-in server on a free port, which the clouds' own variables name."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "FSSPEC_S3_ENDPOINT_URL": endpoint,
    }
    try:
        yield
    finally:
        server.stop()


def show(measured: Sequence[Measured]) -> None:
    """Print the table."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("where", "objects", "new", "find, s", "sweep, s", "ratio min", "median", "max"):
        table.add_column(column, justify="left" if column == "where" else "right")
    for one in measured:
        ratios = one.ratios
        table.add_row(
            one.where,
            f"{one.objects:,}",
            str(NEW),
            f"{statistics.median(one.find_s):.3f}",
            f"{statistics.median(one.sweep_s):.3f}",
            *(f"{ratio:.2f}" for ratio in (min(ratios), statistics.median(ratios), max(ratios))),
        )
    Console().print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code is 1 where a tree of the largest size costs more than the target."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sweep", description="what a sweep costs")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each size (default {ROUNDS})")
    parser.add_argument("--disk", type=int, nargs="*", default=SIZES, metavar="SIZE", help="objects in a local folder")
    parser.add_argument("--s3", type=int, nargs="*", default=S3_SIZES, metavar="SIZE", help="objects in a bucket")
    options = parser.parse_args(arguments)
    measured = [on_disk(size, layout, options.rounds) for size in options.disk for layout in (flat, pairs)]
    with _s3_server() if options.s3 else contextlib.nullcontext():
        measured += [over_s3(size, flat, options.rounds) for size in options.s3]
    show(measured)
    missed = [one for one in measured if one.objects >= max(SIZES) and statistics.median(one.ratios) > TARGET]
    print(f"target: at most {TARGET} × for {max(SIZES):,} objects: {'missed' if missed else 'kept'}")  # noqa: T201
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())

"""What `effects batch` does and prints."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from deployments.commands import exit_code
from deployments.server import prefect_server, quieten
from tasks.effects import load_catalogue
from tasks.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.jobs import BatchSummary, RowOutcome
    from tasks.settings import Settings

TOLD = 40
"""Rows without a video that are listed one by one; `--json` has them all."""


def batch(manifest: str, changes: Mapping[str, object], *, dry_run: bool, as_json: bool) -> int:
    """Make the videos of a manifest, or with `dry_run` say what they would take.

    Returns:
        The exit code: 0 when every video is there, 2 when rows were rejected and all others are there, else 1.

    Raises:
        BadInput: a setting does not fit, or the manifest cannot be read.
    """
    settings = load_settings(**changes)
    load_catalogue(settings.catalogue)
    settings.require_key()
    quieten()
    # Prefect is imported from here on.
    with BatchProgress():
        summary = _rehearse(manifest, settings) if dry_run else _run(manifest, settings)
    if as_json:
        sys.stdout.write(summary.model_dump_json() + "\n")
    elif dry_run:
        _show_prices(summary)
    else:
        _show(summary)
    return exit_code(set(summary.counts) - ({"deferred"} if dry_run else set()))


def _rehearse(manifest: str, settings: Settings) -> BatchSummary:
    from flows.batch import rehearse_batch  # noqa: PLC0415

    return asyncio.run(rehearse_batch(manifest, settings))


def _run(manifest: str, settings: Settings) -> BatchSummary:
    with prefect_server() as server:
        from flows.batch import generate_batch  # noqa: PLC0415
        from flows.outcomes import carried  # noqa: PLC0415
        from tasks.jobs import BatchSummary  # noqa: PLC0415

        async def run() -> BatchSummary:
            state = await generate_batch(
                manifest, settings.target, settings.max_in_flight, settings.budget_usd, return_state=True
            )
            return carried(state, BatchSummary)

        return server.run(run)


class BatchProgress(logging.Handler):
    """One live table on a terminal: done, in flight, money, expected end; a line a row elsewhere; always stderr."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__(logging.INFO)
        self._console = console or Console(stderr=True)
        self._counts: Counter[str] = Counter()
        self._begun, self._done, self._rows, self._cost_usd = 0, 0, 0, 0.0
        self._started = time.monotonic()
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=4, transient=True)
        self._logs = tuple(logging.getLogger(name) for name in ("effects", "effects_looks"))

    def __enter__(self) -> Self:
        for log in self._logs:
            log.addHandler(self)
            log.setLevel(logging.INFO)
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for log in self._logs:
            log.removeHandler(self)
        if self._console.is_terminal:
            self._live.stop()
        if kind is KeyboardInterrupt:
            self._console.print(Text(f"\nstopped: {self._done} of {self._rows} done, {self._in_flight} under way"))

    def emit(self, record: logging.LogRecord) -> None:
        """Count a row that begins, or that has ended; tell warnings."""
        told: tuple[int, int, RowOutcome] | None = getattr(record, "batch", None)
        if hasattr(record, "begun"):
            self._begun += 1
        elif told:
            self._done, self._rows, outcome = told
            self._counts[outcome.state] += 1
            self._cost_usd += outcome.cost_usd
            if not self._console.is_terminal:
                line = f"{self._done}/{self._rows} {outcome.name}: {record.getMessage()}"
                self._console.print(Text(line), soft_wrap=True)
        elif rows := getattr(record, "rows", 0):
            self._rows = rows
        elif record.levelno >= logging.WARNING:
            self._console.print(Text(record.getMessage(), "yellow"), soft_wrap=True)

    @property
    def _in_flight(self) -> int:
        return max(self._begun - self._done, 0)

    def _table(self) -> Table:
        table = Table(box=None, header_style="bold", pad_edge=False)
        took = time.monotonic() - self._started
        cells = {"done": f"{self._done}/{self._rows or '…'}", "in flight": str(self._in_flight)}
        if self._rows:
            cells["to come"] = str(max(self._rows - self._done - self._in_flight, 0))
        cells |= {state: str(count) for state, count in self._counts.items()}
        cells |= {"money": f"${self._cost_usd:.2f}", "so far": _span(took), "left": "…"}
        if self._done:
            left = took / self._done * (self._rows - self._done)
            end = datetime.now().astimezone() + timedelta(seconds=left)
            cells |= {"left": f"about {_span(left)}", "ends": f"{end:%H:%M}"}
        for name in cells:
            table.add_column(name, justify="right")
        table.add_row(*cells.values())
        return table


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def _show(summary: BatchSummary) -> None:
    console = Console(highlight=False, soft_wrap=True)
    missing = [row for row in summary.rows if not row.video]
    for row in missing[:TOLD]:
        console.print(
            Text.assemble((f"{row.state} ", "yellow"), (f"row {row.row} ", "bold"), f"{row.name}: {row.reason}")
        )
    if len(missing) > TOLD:
        console.print(f"… and {len(missing) - TOLD} more: --json has them all")
    console.print(f"{summary.line} · ${summary.cost_usd:.2f}")


def _show_prices(summary: BatchSummary) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("effect", "videos", "price each", "sum", "reused"):
        table.add_column(column, justify="left" if column == "effect" else "right")
    seen: set[str] = set()
    wanted, reused, prices = Counter[tuple[str, float]](), Counter[str](), dict[str, float]()
    for row in summary.rows:
        if row.state == "deferred" and row.job_id and row.job_id not in seen:
            seen.add(row.job_id)
            wanted[row.effect, row.cost_usd] += 1
        elif row.state in {"reused", "deferred"}:
            reused[row.effect] += 1  # there already, or the same job as a row before
        prices.setdefault(row.effect, row.cost_usd)
    for (effect, price), videos in sorted(wanted.items()):
        table.add_row(effect, str(videos), f"${price:.2f}", f"${price * videos:.2f}", str(reused.pop(effect, 0)))
    for effect, videos in sorted(reused.items()):
        table.add_row(effect, "0", "", "$0.00", str(videos))
    total = sum(price * videos for (_, price), videos in wanted.items())
    table.add_row("", str(sum(wanted.values())), "", f"${total:.2f}", "", style="bold")
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    if rejected := summary.counts.get("rejected"):
        console.print(f"{rejected} rows do not fit: see above")
    console.print("Dry run: everything was checked, nothing was sent.")

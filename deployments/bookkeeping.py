"""What `effects status` and `effects resume` do and print: how the jobs of a target stand, and finishing them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.commands import exit_code
from deployments.progress import FAILED_MARK, MARKS, SHORT_ID, Progress
from deployments.server import prefect_server, quieten
from tasks.effects import load_catalogue
from tasks.jobs import Summary, now
from tasks.ledger import OPEN, Ledger
from tasks.settings import load_settings
from tasks.storage import Storage
from tasks.survey import survey, survey_open

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from tasks.settings import Settings
    from tasks.survey import Entry

DONE = 0
AGES = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def status(*, target: str | None, as_json: bool) -> int:
    """Show how every job of the target stands; nothing is sent, no key is needed. Returns the exit code, 0.

    Raises:
        BadInput, StorageError: a setting does not fit; the target cannot be read.
    """
    settings = load_settings(target=target)
    entries = asyncio.run(survey(Ledger(Storage(settings.target)), max_attempts=settings.max_attempts))
    counts = dict(Counter(entry.state for entry in entries))
    if as_json:
        rows = [entry.model_dump(mode="json") for entry in entries]
        cost_usd = _usd(entries, "open") + _usd(entries, "unknown")
        sys.stdout.write(json.dumps({"counts": counts, "cost_usd": round(cost_usd, 6), "rows": rows}) + "\n")
        return DONE
    console = Console(highlight=False)
    if shown := [entry for entry in entries if entry.reason]:
        console.print(_table(shown))
        console.print()
    line = ", ".join(f"{count} {state}" for state, count in counts.items()) or "no jobs yet"
    console.print(f"{settings.target}: {line}{_money(entries)}", soft_wrap=True, markup=False)
    return DONE


def resume(*, target: str | None, resubmit_unknown: bool, as_json: bool) -> int:
    """Finish what is open.

    Returns:
        The exit code: 0 when every video is there or nothing was open; 2 when some were rejected, and all others are
        there; 1 when anything else failed or stays open.

    Raises:
        BadInput, StorageError: a setting does not fit; the target cannot be read.
        ServerTrouble: Prefect's server does not answer.
    """
    settings = load_settings(target=target)
    ledger = Ledger(Storage(settings.target))
    summary = Summary.of(())
    if asyncio.run(ledger.storage.list(OPEN)):
        settings.require_key()
        load_catalogue(settings.catalogue)
        if resubmit_unknown:
            _warn(asyncio.run(survey_open(ledger, max_attempts=settings.max_attempts)))
        summary = _resume(settings, resubmit_unknown=resubmit_unknown)
    if as_json:
        sys.stdout.write(summary.model_dump_json() + "\n")
    else:
        _show(summary)
    return exit_code(summary.counts)


def _resume(settings: Settings, *, resubmit_unknown: bool) -> Summary:
    quieten()
    # Prefect is imported from here on.
    with prefect_server() as server, Progress() as progress:
        from flows.outcomes import summary_of  # noqa: PLC0415
        from flows.resume import resume as flow  # noqa: PLC0415

        progress.say("", "waiting for the Prefect server")

        async def run() -> Summary:
            return summary_of(await flow(resubmit_unknown, settings.target, return_state=True))

        return server.run(run)


def _warn(entries: Sequence[Entry]) -> None:
    """Say what allowing it may cost, before anything is sent."""
    unknown = [entry for entry in entries if entry.state == "unknown"]
    if not unknown:
        sys.stderr.write("effects: no job is unknown: nothing is sent again\n")
        return
    jobs = "1 job is unknown" if len(unknown) == 1 else f"{len(unknown)} jobs are unknown"
    sys.stderr.write(
        f"effects: {jobs}; what the provider's log does not show is sent again: up to ${_usd(entries, 'unknown'):.2f}\n"
    )


def _usd(entries: Sequence[Entry], state: str) -> float:
    return sum(entry.cost_usd or 0.0 for entry in entries if entry.state == state)


def _money(entries: Sequence[Entry]) -> str:
    held, perhaps = _usd(entries, "open"), _usd(entries, "unknown")
    parts = [f"${held:.2f} held for what is open"] if held else []
    parts += [f"up to ${perhaps:.2f} paid for what is unknown"] if perhaps else []
    return f" · {', '.join(parts)}" if parts else ""


def _table(entries: Sequence[Entry]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("state", "effect", "job", "attempt", "since"):
        table.add_column(column, no_wrap=True)
    table.add_column("why → what next")
    for entry in entries:
        style = MARKS.get(entry.state, FAILED_MARK)[1]
        table.add_row(
            f"[{style}]{entry.state}[/]",
            escape(entry.effect),
            entry.job_id[:SHORT_ID],
            str(entry.attempt) if entry.attempt else "",
            _age(entry.since),
            escape(f"{entry.reason} → {entry.next_move}"),
        )
    return table


def _age(since: datetime | None) -> str:
    if since is None:
        return ""
    seconds = max((now() - since).total_seconds(), 0.0)
    length, unit = next(((length, unit) for length, unit in AGES if seconds >= length), AGES[-1])
    return f"{seconds / length:.0f} {unit} ago"


def _show(summary: Summary) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for row in summary.rows:
        mark, style = MARKS.get(row.state, FAILED_MARK)
        job = (row.job_id or "")[:SHORT_ID]
        console.print(f"[{style}]{mark}[/] [bold]{row.effect}[/] {job} {row.state}")
        shown = os.path.relpath(row.video) if row.video and "://" not in row.video else row.video
        console.print(f"  {shown or row.reason}", markup=False)
    spent = f", ${summary.cost_usd:.2f} spent" if summary.cost_usd else ""
    console.print(f"{summary.line}{spent}")

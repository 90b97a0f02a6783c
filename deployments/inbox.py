"""What `effects inbox` does and prints."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from deployments.batch import BatchProgress
from deployments.commands import exit_code
from deployments.server import prefect_server, quieten
from tasks.effects import load_catalogue
from tasks.errors import BadInput, StorageError
from tasks.inbox import Inbox
from tasks.jobs import BatchSummary
from tasks.receipts import Receipts
from tasks.settings import load_settings
from tasks.storage import Storage

if TYPE_CHECKING:
    from tasks.settings import Settings

TOLD = 40
"""Rows that are listed one by one; `--json` has them all."""


def inbox(url: str | None, *, target: str | None, as_json: bool) -> int:
    """Make the videos of what was uploaded and is not done yet.

    Returns:
        The exit code: 0 when every video is there, or waits for the rest of its upload; 2 when uploads were rejected
        and all others are there; else 1.

    Raises:
        BadInput: a setting does not fit, or the inbox cannot be looked at.
        StorageError: the inbox or the target cannot be read now.
    """
    settings = load_settings(inbox=url, target=target)
    watched = Inbox(settings, load_catalogue(settings.catalogue))
    settings.require_key()
    summary = BatchSummary.of(())
    if asyncio.run(_is_anything_new(watched, settings)):
        quieten()
        # Prefect is imported from here on.
        with BatchProgress():
            summary = _run(settings)
    if as_json:
        sys.stdout.write(summary.model_dump_json() + "\n")
    else:
        _show(summary)
    return exit_code(set(summary.counts) - {"waiting"})


async def _is_anything_new(watched: Inbox, settings: Settings) -> bool:
    """Without Prefect: most looks find nothing, and nobody should wait for a server to learn that."""
    try:
        storage = Storage(settings.target)
    except StorageError as error:
        raise BadInput(f"the target does not fit: {error.reason}") from None
    look = await watched.look(await Receipts(storage).settled())
    return bool(look.ready or look.waiting)


def _run(settings: Settings) -> BatchSummary:
    with prefect_server() as server:
        from flows.inbox import process_inbox  # noqa: PLC0415
        from flows.outcomes import carried  # noqa: PLC0415
        from flows.veil import veil  # noqa: PLC0415

        async def run() -> BatchSummary:
            [url] = veil([settings.inbox or ""])
            return carried(await process_inbox(url, settings.target, return_state=True), BatchSummary)

        return server.run(run)


def _show(summary: BatchSummary) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for row in summary.rows[:TOLD]:
        style = "green" if row.video else "yellow"
        console.print(Text.assemble((f"{row.state} ", style), (row.name, "bold"), f": {row.video or row.reason}"))
    if len(summary.rows) > TOLD:
        console.print(f"… and {len(summary.rows) - TOLD} more: --json has them all")
    console.print(f"{summary.line} · ${summary.cost_usd:.2f}")

"""A batch in the dashboard: progress that moves, and at the end a table and the posters."""

from __future__ import annotations

import asyncio
import base64
import io
import logging
import string
import time
from typing import TYPE_CHECKING, Self

from PIL import Image
from prefect.artifacts import (
    acreate_markdown_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)

from tasks.errors import EffectsError
from tasks.visibility import watched

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from tasks.jobs import BatchSummary, RowOutcome
    from tasks.workspace import Workspace

log = logging.getLogger("effects")

UPDATE_PAUSE_S = 2.0
"""Between two updates of the progress: each is a request to the server."""

POSTERS = 24
POSTER_SIDE = 120
POSTERS_ABREAST = 4
TABLE_ROWS = 1000
"""An artifact is one row of the server's database: longer tables lie in the JSON of the command."""


class Showcase:
    """What the dashboard shows of one batch.

    Args:
        progress: id of the progress artifact.
        rows: how many rows there are.
    """

    def __init__(self, progress: UUID, rows: int, workspace: Workspace) -> None:
        self._progress, self._rows, self._workspace = progress, rows, workspace
        self._ended, self._shown_at = 0, 0.0

    @classmethod
    async def begin(cls, rows: int, workspace: Workspace) -> Self:
        """Show that nothing is done yet."""
        progress = await acreate_progress_artifact(0.0, description=f"0 of {rows} rows")
        watched.info("%d rows", rows, extra={"rows": rows})
        return cls(progress, rows, workspace)

    async def row_ended(self, outcome: RowOutcome) -> None:
        """Count a row; the progress moves every so often."""
        self._ended += 1
        about = {"effect": outcome.name, "batch": (self._ended, self._rows, outcome)}
        log.info("%s", f"{outcome.state}: {outcome.reason}" if outcome.reason else outcome.state, extra=about)
        now = time.monotonic()
        if now - self._shown_at >= UPDATE_PAUSE_S:
            self._shown_at = now
            await self._show()

    def expect(self, rows: int) -> None:
        """There are so many in all: some may arrive while others are under way."""
        self._rows = rows
        watched.info("%d rows", rows, extra={"rows": rows})

    async def end(self, summary: BatchSummary) -> None:
        """Show what it all came to."""
        await self._show()
        target = self._workspace.ledger.storage.url_of("").rstrip("/")
        about = f"{summary.line}; ${summary.cost_usd:.2f} in this run"
        await acreate_table_artifact(
            [
                {
                    "row": outcome.row,
                    "name": outcome.name,
                    "effect": outcome.effect,
                    "state": outcome.state,
                    "seconds": round(outcome.seconds, 1),
                    "polls": outcome.looks,
                    "US$": outcome.cost_usd,
                    # No dashboard wraps a cell: what all have in common stands above the table.
                    "video": outcome.video.removeprefix(f"{target}/") if outcome.video else outcome.reason,
                }
                for outcome in _first(summary.rows)
            ],
            key="batch-rows",
            description=f"{about}; videos in {target}",
        )
        await acreate_markdown_artifact(await self._markdown(summary), key="batch-summary", description=about)

    async def _show(self) -> None:
        share = round(100 * self._ended / self._rows, 1)
        await aupdate_progress_artifact(self._progress, share, f"{self._ended} of {self._rows} rows")

    async def _markdown(self, summary: BatchSummary) -> str:
        counts = "\n".join(f"| {state} | {count} |" for state, count in summary.counts.items())
        shown = [outcome for outcome in summary.rows if outcome.video][:POSTERS]
        pictures = await asyncio.gather(*(self._picture(outcome) for outcome in shown))
        return f"| state | rows |\n| --- | ---: |\n{counts}\n\n{_sheet([one for one in pictures if one])}"

    async def _picture(self, outcome: RowOutcome) -> str:
        """The poster and, under it, whose it is; nothing where there is none: the table says the rest."""
        path = f"{outcome.effect}/{outcome.job_id}/poster.jpg"
        try:
            poster = await self._workspace.ledger.storage.read(path)
            if not poster:
                return ""
            small = await asyncio.to_thread(_thumbnail, poster)
        except (EffectsError, OSError):
            return ""
        return f"![{outcome.effect}](data:image/jpeg;base64,{small}) {_plain(outcome.name)}"


def _sheet(pictures: Sequence[str]) -> str:
    """Pictures side by side: both dashboards give each one a line of its own, but for those in a table."""
    if not pictures:
        return ""
    across = min(len(pictures), POSTERS_ABREAST)
    lines = [pictures[start : start + across] for start in range(0, len(pictures), across)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in ([" "] * across, ["---"] * across, *lines)) + "\n"


def _plain(name: str) -> str:
    """A name that somebody gave, as Markdown that says just that."""
    return "".join(f"\\{sign}" if sign in string.punctuation else sign for sign in " ".join(name.split()))


def _first(rows: Sequence[RowOutcome]) -> list[RowOutcome]:
    """As many as a table takes, in their order: all without a video before any that has one."""
    by_need = sorted(rows, key=lambda outcome: outcome.video is not None)
    return sorted(by_need[:TABLE_ROWS], key=lambda outcome: outcome.row)


def _thumbnail(poster: bytes) -> str:
    small = io.BytesIO()
    with Image.open(io.BytesIO(poster)) as picture:
        picture.thumbnail((POSTER_SIDE, POSTER_SIDE))
        picture.save(small, "JPEG", quality=70)
    return base64.b64encode(small.getvalue()).decode()

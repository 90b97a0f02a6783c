"""What was uploaded: everything new in the inbox becomes a job, and every upload ends in one named state."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Annotated

from prefect import flow, runtime
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads the flow's annotations for the form
from pydantic import Field

from flows.attention import call_for_a_person
from flows.batch import run_rows
from flows.configuration import configured
from flows.generate import generate_video
from flows.outcomes import summary_state
from flows.showcase import Showcase
from flows.veil import unveiled
from tasks.errors import EffectsError
from tasks.inbox import Inbox
from tasks.jobs import BatchSummary, Outcome, RowOutcome, public_url
from tasks.receipts import Receipt, Receipts
from tasks.reckoning import Reckoning
from tasks.uploads import SETTLE_S
from tasks.workspace import open_workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tasks.inbox import Look
    from tasks.jobs import Job
    from tasks.manifest import Row
    from tasks.uploads import Upload
    from tasks.workspace import Workspace

MAX_ROUNDS = 20
"""A run looks again after each round of jobs; what arrives behind that many is the next run's."""

MAX_NAMED = 3
"""Folders that a run is named after."""

SETTLED = frozenset({"completed", "reused"})
"""Besides what ended for good in another way."""

log = logging.getLogger("effects")


def _run_name() -> str:
    asked = runtime.flow_run.parameters
    folders = [public_url(folder) for folder in asked.get("folders") or ()]
    more = f" + {len(folders) - MAX_NAMED}" if len(folders) > MAX_NAMED else ""
    return f"inbox · {' + '.join(folders[:MAX_NAMED]) or public_url(asked.get('inbox') or 'all of it')}{more}"


@flow(name="process-inbox", flow_run_name=_run_name, on_failure=[call_for_a_person])
async def process_inbox(
    inbox: str | None = None,
    target: str | None = None,
    folders: list[str] | None = None,
    max_in_flight: Annotated[int | None, Field(ge=1)] = None,
    budget_usd: Annotated[float | None, Field(ge=0)] = None,
) -> State[BatchSummary]:
    """Make the videos of what was uploaded and is not done yet. Nothing is paid for twice, however often it runs.

    Args:
        inbox: The location to look at; empty for the default inbox.
        target: Where the videos go; empty for the default target.
        folders: Look at these alone, such as hug/anna-and-ben, or their URLs; empty for everything.
        max_in_flight: Jobs under way at once; empty for the default.
        budget_usd: Spend no more than this, US$; empty for the default.
    """
    settings = await configured(
        inbox=unveiled([inbox])[0] if inbox else None,
        target=target or None,
        max_in_flight=max_in_flight,
        budget_usd=budget_usd,
    )
    async with open_workspace(settings) as workspace:
        summary = await Sweep(Inbox(settings, workspace.catalogue, folders or ()), workspace).run()
    return summary_state(summary)


class Sweep:
    """One run over the inbox.

    Args:
        inbox: all of it, or some folders.
        workspace: of this run.
    """

    def __init__(self, inbox: Inbox, workspace: Workspace) -> None:
        self._inbox, self._workspace = inbox, workspace
        self._receipts = Receipts(workspace.ledger.storage)
        self._rows: list[RowOutcome] = []
        self._showcase: Showcase | None = None
        self._reckoning: Reckoning | None = None

    async def run(self) -> BatchSummary:
        """Look, make what is ready, and look again until a look finds nothing new.

        Raises:
            BadInput, StorageError: the inbox or the receipts cannot be read; nothing was begun.
        """
        seen = await self._receipts.settled()
        look, rested = await self._inbox.look(seen), False
        for _ in range(MAX_ROUNDS):
            if look.ready:
                await self._make(look)
                seen.update(upload.key for upload in look.ready)
            elif look.growing and not rested:
                await asyncio.sleep(SETTLE_S)
                rested = True
            else:
                break
            try:
                look = await self._inbox.look(seen)
            except EffectsError as error:  # what is done is done: it must not get lost over this
                log.warning("what arrived meanwhile is left for the next sweep: %s", error.reason)
                break
        else:
            log.info("there is always more: the next sweep goes on")
        await self._wait_for(look)
        await self._receipts.bundle()
        self._rows.sort(key=lambda outcome: outcome.row)
        summary = BatchSummary.of(self._rows)
        if self._reckoning:
            await self._reckoning.end(self._workspace.budget)
        if self._showcase:
            self._showcase.expect(len(self._rows))  # what waited may have been taken away
            await self._showcase.end(summary)
        return summary

    async def _make(self, look: Look) -> None:
        """The videos of every upload that is ready; those that are rejected get their row like all others."""
        await self._expect(len(look.ready) + len(look.waiting))
        self._reckoning = self._reckoning or await Reckoning.begin(self._workspace.provider.balance_usd)
        uploads = dict(enumerate(look.ready, len(self._rows) + 1))
        taken: dict[tuple[str, ...], Upload] = {}

        def rows() -> Iterator[Row]:
            for number, upload in uploads.items():
                row = self._inbox.row(number, upload)
                if row.job:
                    taken[row.job.images] = upload
                yield row

        async def make(job: Job, workspace: Workspace) -> Outcome:
            return await generate_video(await self._inbox.as_told(job, taken.pop(job.images)), workspace)

        async def ended(outcome: RowOutcome) -> None:
            await self._ended(outcome, uploads[outcome.row])

        await run_rows(rows(), self._workspace, make, ended)

    async def _wait_for(self, look: Look) -> None:
        """A row for what is not complete: it is looked at again by every sweep, until it is."""
        if look.waiting:
            await self._expect(len(look.waiting))
        for upload in look.waiting:
            outcome = Outcome(state="waiting", effect=upload.effect, reason=upload.waits)
            await self._ended(RowOutcome.of(len(self._rows) + 1, upload.name, outcome), upload)

    async def _ended(self, outcome: RowOutcome, upload: Upload) -> None:
        if upload.problems:
            outcome = outcome.model_copy(update={"effect": upload.effect, "final": upload.lasting})
        self._rows.append(outcome)
        if outcome.final or outcome.state in SETTLED:
            await self._receipts.keep(Receipt.of(upload, outcome))
        if self._showcase:
            await self._showcase.row_ended(outcome)

    async def _expect(self, more: int) -> None:
        rows = len(self._rows) + more
        self._showcase = self._showcase or await Showcase.begin(rows, self._workspace)
        self._showcase.expect(rows)

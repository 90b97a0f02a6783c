"""Many videos, from a manifest: every row checked before a cent is spent, every row accounted for at the end."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Annotated

from prefect import flow, runtime
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads the flow's annotations for the form
from pydantic import Field

from flows.attention import call_for_a_person
from flows.configuration import configured
from flows.generate import generate_video, rehearse_in
from flows.outcomes import summary_state
from flows.showcase import Showcase
from tasks.errors import EffectsError
from tasks.jobs import BatchSummary, Outcome, RowOutcome, public_url
from tasks.manifest import Row, read_manifest
from tasks.reckoning import Reckoning
from tasks.visibility import on_its_own, watched
from tasks.workspace import open_workspace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator

    from tasks.jobs import Job
    from tasks.settings import Settings
    from tasks.workspace import Workspace

log = logging.getLogger("effects")

COLLECT = (50_000, 20, 50)
"""Garbage is collected after so many new objects: a job makes and drops thousands."""

TAKEN_AT_ONCE = 100
"""Rows that are read ahead: each time costs a thread's turn."""


def _run_name() -> str:
    return f"batch · {public_url(str(runtime.flow_run.parameters.get('manifest'))).rsplit('/', 1)[-1]}"


@flow(name="generate-batch", flow_run_name=_run_name, on_failure=[call_for_a_person])
async def generate_batch(
    manifest: str,
    target: str | None = None,
    max_in_flight: Annotated[int | None, Field(ge=1)] = None,
    budget_usd: Annotated[float | None, Field(ge=0)] = None,
) -> State[BatchSummary]:
    """Make the videos of a manifest. What is there already is reused; nothing is paid for twice.

    Args:
        manifest: JSONL or CSV at any URL: effect, images, and if wanted duration, take, name.
        target: Where the videos go; empty for the default target.
        max_in_flight: Jobs under way at once; empty for the default.
        budget_usd: Spend no more than this, US$; empty for the default.
    """
    settings = await configured(target=target or None, max_in_flight=max_in_flight, budget_usd=budget_usd)
    async with open_workspace(settings) as workspace:
        count = await check_rows(manifest, workspace)
        showcase = await Showcase.begin(count, workspace)
        reckoning = await Reckoning.begin(workspace.provider.balance_usd)
        summary = await run_rows(rows_of(manifest, workspace), workspace, generate_video, showcase.row_ended)
        await reckoning.end(workspace.budget)
        await showcase.end(summary)
    return summary_state(summary)


async def rehearse_batch(manifest: str, settings: Settings) -> BatchSummary:
    """Everything up to the submissions, for every row, without Prefect and without a trace.

    Raises:
        BadInput: the manifest cannot be read.
    """
    async with open_workspace(settings) as workspace:
        await check_rows(manifest, workspace)
        return await run_rows(rows_of(manifest, workspace), workspace, rehearse_in)


async def check_rows(manifest: str, workspace: Workspace) -> int:
    """Look at every row, and say how many there are; all problems are told, with their row numbers.

    None is kept: that so many are checked before a cent is spent must not cost the memory of so many.

    Raises:
        BadInput: the manifest cannot be read, or has no rows.
    """

    def check() -> int:
        count = 0
        for row in rows_of(manifest, workspace):
            count += 1
            for problem in row.problems:
                log.warning("row %d: %s", row.number, problem)
        return count

    return await asyncio.to_thread(check)


def rows_of(manifest: str, workspace: Workspace) -> Iterator[Row]:
    """The manifest's rows, read as they are taken.

    Raises:
        BadInput: as for `read_manifest`.
    """
    return read_manifest(manifest, workspace.catalogue, default_model=workspace.settings.model)


async def run_rows(
    rows: Iterable[Row],
    workspace: Workspace,
    make: Callable[[Job, Workspace], Awaitable[Outcome]],
    ended: Callable[[RowOutcome], Awaitable[None]] | None = None,
) -> BatchSummary:
    """Every row, so many at a time, in one event loop; one bad row never stops the others, account trouble does.

    Args:
        rows: of the manifest; taken in a thread, since they may be read from far away.
        workspace: of this run.
        make: makes the video of a job, or only looks at it.
        ended: told of every row that has ended.
    """
    outcomes: list[RowOutcome] = []
    free = asyncio.Semaphore(workspace.settings.max_in_flight)

    async def run(row: Row) -> None:
        try:
            with on_its_own(row.name):
                outcome = RowOutcome.of(row.number, row.name, await _one(row, workspace, make))
            outcomes.append(outcome)
            if ended:
                await ended(outcome)
        finally:
            free.release()

    _collect_less_often()
    async with asyncio.TaskGroup() as jobs:
        async for row in _taken(rows):
            await free.acquire()
            watched.info("%s", "begun", extra={"begun": row.number})
            jobs.create_task(run(row))
    outcomes.sort(key=lambda outcome: outcome.row)
    return BatchSummary.of(outcomes)


@cache
def _collect_less_often() -> None:
    """Once a process: what was imported stays; going over it again and again took a tenth of the time."""
    gc.freeze()
    gc.set_threshold(*COLLECT)


async def _taken(rows: Iterable[Row]) -> AsyncIterator[Row]:
    remaining = iter(rows)
    while chunk := await asyncio.to_thread(lambda: tuple(islice(remaining, TAKEN_AT_ONCE))):
        for row in chunk:
            yield row


async def _one(row: Row, workspace: Workspace, make: Callable[[Job, Workspace], Awaitable[Outcome]]) -> Outcome:
    if row.job is None:
        return Outcome(state="rejected", effect="", reason="; ".join(row.problems))
    if workspace.trouble:  # photos need not be fetched for what cannot be bought
        return Outcome.from_error(row.job.effect, workspace.trouble)
    started = time.monotonic()
    try:
        return await make(row.job, workspace)
    except EffectsError as error:
        outcome = Outcome.from_error(row.job.effect, error)
        return outcome.model_copy(update={"seconds": round(time.monotonic() - started, 3)})

"""Many videos, from a manifest: every row checked before a cent is spent, every row accounted for at the end."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Annotated

from prefect import flow, runtime
from pydantic import Field

from flows.generate import generate_video, rehearse_in
from flows.outcomes import summary_state
from flows.showcase import Showcase
from tasks.errors import BadInput, EffectsError
from tasks.jobs import BatchSummary, Outcome, RowOutcome, public_url
from tasks.manifest import Row, read_manifest
from tasks.settings import load_settings
from tasks.visibility import about_job
from tasks.workspace import open_workspace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from prefect.client.schemas.objects import State

    from tasks.jobs import Job
    from tasks.settings import Settings
    from tasks.workspace import Workspace

log = logging.getLogger("effects")


def _run_name() -> str:
    return f"batch · {public_url(str(runtime.flow_run.parameters.get('manifest'))).rsplit('/', 1)[-1]}"


@flow(name="generate-batch", flow_run_name=_run_name)
async def generate_batch(
    manifest: str,
    target: str | None = None,
    max_in_flight: Annotated[int | None, Field(ge=1)] = None,
    budget_usd: Annotated[float | None, Field(ge=0)] = None,
) -> State[BatchSummary]:
    """Make the videos of a manifest. What is there already is reused; nothing is paid for twice.

    Args:
        manifest: JSONL or CSV at any URL: effect, images, and if wanted duration, take, name.
        target: Where the videos go; empty for EFFECTS_TARGET.
        max_in_flight: Jobs under way at once; empty for EFFECTS_MAX_IN_FLIGHT.
        budget_usd: Spend no more than this, US$; empty for EFFECTS_BUDGET_USD.
    """
    settings = load_settings(target=target or None, max_in_flight=max_in_flight, budget_usd=budget_usd)
    async with open_workspace(settings) as workspace:
        rows = await read_rows(manifest, workspace)
        showcase = await Showcase.begin(len(rows), workspace)
        summary = await run_rows(rows, workspace, generate_video, showcase.row_ended)
        await showcase.end(summary)
    return summary_state(summary)


async def rehearse_batch(manifest: str, settings: Settings) -> BatchSummary:
    """Everything up to the submissions, for every row, without Prefect and without a trace.

    Raises:
        BadInput: the manifest cannot be read.
    """
    async with open_workspace(settings) as workspace:
        return await run_rows(await read_rows(manifest, workspace), workspace, rehearse_in)


async def read_rows(manifest: str, workspace: Workspace) -> tuple[Row, ...]:
    """Every row, checked; all problems are told, with their row numbers, before anything is sent.

    Raises:
        BadInput: the manifest cannot be read, or has no rows.
    """
    model = workspace.settings.model
    rows = await asyncio.to_thread(lambda: tuple(read_manifest(manifest, workspace.catalogue, default_model=model)))
    if not rows:
        raise BadInput(f"{public_url(manifest)} has no rows")
    for row in rows:
        for problem in row.problems:
            log.warning("row %d: %s", row.number, problem)
    return rows


async def run_rows(
    rows: Iterable[Row],
    workspace: Workspace,
    make: Callable[[Job, Workspace], Awaitable[Outcome]],
    ended: Callable[[RowOutcome], Awaitable[None]] | None = None,
) -> BatchSummary:
    """Every row, so many at a time, in one event loop; one bad row never stops the others, account trouble does.

    Args:
        rows: of the manifest.
        workspace: of this run.
        make: makes the video of a job, or only looks at it.
        ended: told of every row that has ended.
    """
    todo, outcomes = iter(rows), list[RowOutcome]()

    async def work() -> None:
        for row in todo:  # shared: each worker takes the next row that nobody has
            about_job.set(row.name)
            outcome = RowOutcome.of(row.number, row.name, await _one(row, workspace, make))
            outcomes.append(outcome)
            if ended:
                await ended(outcome)

    async with asyncio.TaskGroup() as workers:
        for _ in range(workspace.settings.max_in_flight):
            workers.create_task(work())
    outcomes.sort(key=lambda outcome: outcome.row)
    return BatchSummary.of(outcomes)


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

"""What it all came to: counts, spend, and the jobs that need somebody, as artifacts in the dashboard."""

from __future__ import annotations

from typing import Annotated

from prefect import flow
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.client.schemas.objects import State  # noqa: TC002 - Prefect reads the flow's annotations for the form
from prefect.states import Completed
from pydantic import Field

from flows.configuration import configured
from tasks.errors import BadInput, StorageError
from tasks.ledger import Ledger
from tasks.report import Report, Spend, report_on
from tasks.storage import Storage

TABLE_ROWS = 1000
"""An artifact is one row of the server's database: `effects status --json` has all."""


@flow(name="report")
async def report(target: str | None = None, days: Annotated[int, Field(ge=1, le=366)] = 7) -> State[Report]:
    """Show how every job of the target stands and what the last days cost. Nothing is sent, and no key is needed.

    It lists the target once, and reads what is unfinished and what was finished in these days.

    Args:
        target: Where the ledger is; empty for the default target.
        days: How far back the spend is added up.
    """
    settings = await configured(target=target or None)
    try:
        ledger = Ledger(Storage(settings.target))
    except StorageError as error:
        raise BadInput(f"the target does not fit: {error.reason}") from None
    made = await report_on(ledger, days=days, max_attempts=settings.max_attempts)
    await acreate_table_artifact(_jobs(made), key="report-jobs", description=_about_jobs(made))
    await acreate_markdown_artifact(_markdown(made), key="report-summary", description=made.target)
    return Completed(message=made.line, data=made)


def _jobs(made: Report) -> list[dict[str, object]]:
    return [
        {
            "state": entry.state,
            "effect": entry.effect,
            "job": entry.job_id,
            "attempt": entry.attempt or "",
            "since": f"{entry.since:%Y-%m-%d %H:%M} UTC" if entry.since else "",
            "US$": entry.cost_usd,
            "why": entry.reason,
            "next": entry.next_move,
        }
        for entry in made.jobs[:TABLE_ROWS]
    ]


def _about_jobs(made: Report) -> str:
    shown = f", the first {TABLE_ROWS} of them here" if len(made.jobs) > TABLE_ROWS else ""
    return f"{made.target}: {len(made.jobs)} jobs of which something is left to do{shown}"


def _markdown(made: Report) -> str:
    counts = "\n".join(f"| {state} | {count} |" for state, count in made.counts.items())
    spend = "\n".join(
        f"| {row.day} | {row.effect} | {row.videos} | {row.usd:.2f} | {_unpriced(row)} |" for row in made.spend
    )
    money = [f"**${made.spent_usd:.2f}** for {made.videos} videos since {made.since:%Y-%m-%d %H:%M} UTC"]
    money += [f"${made.held_usd:.2f} held for what is open"] if made.held_usd else []
    money += [f"up to ${made.perhaps_usd:.2f} paid for what is unknown"] if made.perhaps_usd else []
    return (
        f"**{made.target}** at {made.at:%Y-%m-%d %H:%M} UTC\n\n{' · '.join(money)}\n\n"
        f"| state | jobs |\n| --- | ---: |\n{counts}\n\n"
        f"| day | effect | videos | US$ | |\n| --- | --- | ---: | ---: | --- |\n{spend}\n"
    )


def _unpriced(row: Spend) -> str:
    return f"and {row.unpriced} of which the provider told no price" if row.unpriced else ""

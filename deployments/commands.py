"""What `effects generate` and `effects effects` do and print."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from deployments.server import prefect_server, quieten
from tasks.effects import check_job, load_catalogue
from tasks.errors import BadInput, EffectsError
from tasks.jobs import Job, Outcome
from tasks.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable

THERE = frozenset({"completed", "reused"})


def exit_code(states: Iterable[str]) -> int:
    """Of a run with jobs in these states: 0 all there, 2 the rest was rejected, 1 anything else."""
    missing = set(states) - THERE
    return 1 if missing - {"rejected"} else 2 if missing else 0


def generate(job: Job, *, target: str | None, dry_run: bool, as_json: bool) -> int:
    """Make one video, or with `dry_run` say what it would take. Returns the exit code."""
    rehearsed, told = dry_run, False
    try:
        outcome = _generate(job, target, dry_run=dry_run)
    except EffectsError as error:
        rehearsed = False  # it broke off: there is no price to show
        outcome = Outcome.from_error(job.effect, error)
        if told := isinstance(error, BadInput):
            _report_problems(error)
            outcome = outcome.model_copy(update={"reason": error.reason})
    if as_json:
        sys.stdout.write(outcome.model_dump_json() + "\n")
    elif rehearsed:
        _show_price(outcome)
    elif not told:
        _show(outcome)
    return exit_code({outcome.state} - ({"deferred"} if rehearsed else set()))


def show_effects(*, as_json: bool) -> int:
    """Print the catalogue."""
    settings = load_settings()
    catalogue = load_catalogue(settings.catalogue)
    if as_json:
        sys.stdout.write(catalogue.model_dump_json() + "\n")
        return 0
    model = settings.model or catalogue.provider.default_model
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("effect", "photos", "seconds", "US$", "what happens"):
        table.add_column(column, justify="right" if column == "US$" else "left")
    rows = sorted(catalogue.effects.values(), key=lambda effect: not effect.core)
    for effect in rows:
        price = " / ".join(f"{catalogue.price_usd(model, seconds):.2f}" for seconds in effect.durations)
        seconds = " / ".join(str(seconds) for seconds in effect.durations)
        table.add_row(effect.name, str(effect.images), seconds, price, effect.description)
    console = Console()
    console.print(table)
    console.print(f"\nPrices are expected ones for {model}; the provider's answer to a submission says the actual one.")
    return 0


def _generate(job: Job, target: str | None, *, dry_run: bool) -> Outcome:
    settings = load_settings(target=target)
    check_job(job, load_catalogue(settings.catalogue), default_model=settings.model)
    settings.require_key()
    quieten()
    # Prefect is imported from here on.
    from flows.generate import generate as flow  # noqa: PLC0415
    from flows.generate import rehearse  # noqa: PLC0415
    from flows.outcomes import outcome_of  # noqa: PLC0415
    from flows.veil import veil  # noqa: PLC0415

    if dry_run:
        return asyncio.run(rehearse(job, settings))
    from deployments.progress import Progress  # noqa: PLC0415

    with prefect_server() as server, Progress((job.effect,)) as progress:
        # The server starts while the images are looked at: bad input is told before there is anything to wait for.
        progress.say(job.effect, "looking at the photos")
        rehearsed = asyncio.run(rehearse(job, settings))
        if rehearsed.state == "reused":
            return rehearsed
        progress.say(job.effect, "waiting for the Prefect server")

        async def run() -> Outcome:
            images = veil(job.images)
            return outcome_of(
                await flow(job.effect, images, job.duration, job.take, settings.target, return_state=True)
            )

        return server.run(run)


def _report_problems(error: BadInput) -> None:
    for problem in error.problems:
        sys.stderr.write(f"effects: {problem}\n")


def _show_price(outcome: Outcome) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("effect", "videos", "price each", "sum", "reused"):
        table.add_column(column, justify="left" if column == "effect" else "right")
    price, videos = f"${outcome.cost_usd:.2f}", 0 if outcome.state == "reused" else 1
    table.add_row(outcome.effect, str(videos), price, price, str(1 - videos))
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print("\nDry run: everything was checked, nothing was sent.")
    if outcome.video:
        console.print(f"The video is there already: {outcome.video}", markup=False)


def _show(outcome: Outcome) -> None:
    console = Console(soft_wrap=True, highlight=False)
    if outcome.video:
        verb = "was there already" if outcome.state == "reused" else f"took {outcome.seconds:.0f} s"
        console.print(f"[green]✓[/] {outcome.effect} {verb}, cost ${outcome.cost_usd:.2f}")
        console.print(f"  {outcome.video}", markup=False)
    else:
        console.print(f"[yellow]{outcome.state}[/]: {escape(outcome.reason or '')}")

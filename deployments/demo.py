"""`effects demo`: the main job from end to end, with real photos, the sandbox provider and a local target."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from deployments.progress import Progress
from deployments.sandbox.server import Sandbox
from deployments.server import prefect_server, quieten
from tasks.jobs import Job, Outcome

if TYPE_CHECKING:
    from deployments.server import Server

PHOTOS = Path(__file__).parent / "photos"
TARGET = "./demo-videos"
STATE = "_sandbox"
"""Where the sandbox keeps its books, inside the target: what one demo left open, the next can finish."""

JOBS = (
    Job(effect="hug", images=("collins.jpg", "hopper.jpg")),
    Job(effect="kiss", images=("hopper.jpg", "collins.jpg")),
    Job(effect="heart_gesture", images=("collins.jpg", "hopper.jpg")),
    Job(effect="squish", images=("chelsea.jpg",)),
    Job(effect="expansion", images=("chelsea.jpg",)),
)


def demo(target: str | None, *, as_json: bool) -> int:
    """Make all five core effects; returns the exit code: 0 when all five videos are there."""
    target = target or TARGET
    quieten()
    state = None if "://" in target else Path(target) / STATE
    with Sandbox(state=state, generate_seconds=4.0, balance_usd=10_000.0) as sandbox:
        billed_before = sandbox.counters.billed  # by earlier demos: its books are kept
        os.environ.update(
            EFFECTS_API_URL=sandbox.url,
            EFFECTS_API_KEY="sandbox",
            EFFECTS_TARGET=target,
            EFFECTS_DELIVERY="inline",  # the photos lie on this machine, and so does the sandbox
            EFFECTS_POLL_INTERVAL_S="1",
        )
        with prefect_server() as server:
            import flows.generate  # noqa: F401, PLC0415 - Prefect is heavy: loaded while its server starts

            with Progress(tuple(job.effect for job in JOBS)) as progress:
                for job in JOBS:
                    progress.say(job.effect, "waiting for the Prefect server")
                outcomes = server.run(lambda: _run_all(target, progress))
            billed = sandbox.counters.billed - billed_before
            if as_json:
                _print_json(outcomes, billed)
            else:
                _show(outcomes, billed, server)
    return 0 if all(outcome.video for outcome in outcomes) else 1


async def _run_all(target: str, progress: Progress) -> list[Outcome]:
    from flows.generate import generate  # noqa: PLC0415
    from flows.outcomes import outcome_of  # noqa: PLC0415

    async def run(job: Job) -> Outcome:
        images = [str(PHOTOS / name) for name in job.images]
        state = await generate(job.effect, images, job.duration, job.take, target, return_state=True)
        outcome = outcome_of(state)
        progress.end(job.effect, outcome.state)
        return outcome

    return list(await asyncio.gather(*(run(job) for job in JOBS)))


def _print_json(outcomes: list[Outcome], billed: int) -> None:
    document = {"billed": billed, "rows": [outcome.model_dump() for outcome in outcomes]}
    sys.stdout.write(json.dumps(document) + "\n")


def _show(outcomes: list[Outcome], billed: int, server: Server) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for outcome in outcomes:
        mark = "[green]✓[/]" if outcome.video else "[red]✗[/]"
        spent = f"{outcome.seconds:.0f} s, ${outcome.cost_usd:.2f}" if outcome.state == "completed" else "$0.00"
        console.print(f"{mark} [bold]{outcome.effect}[/] {outcome.state} ({spent})")
        shown = os.path.relpath(outcome.video) if outcome.video and "://" not in outcome.video else outcome.video
        console.print(f"  {shown or outcome.reason}", markup=False)
    total = sum(outcome.cost_usd for outcome in outcomes)
    console.print(
        f"\n{billed} paid submissions, all to the sandbox: free. With the real provider: ${total:.2f}.\n"
        f"Watch a video:    open any of the files above in a player or a browser\n"
        f"See the runs:     {_where(server)}\n"
        f"Your own photos:  EFFECTS_API_KEY=… uv run effects generate hug left.jpg right.jpg"
    )


def _where(server: Server) -> str:
    if server.temporary:
        return "uv run prefect server start, then http://127.0.0.1:4200/runs"
    return f"{server.dashboard}/runs"

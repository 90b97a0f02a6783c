"""A process that submits a job at a moment it is told: one of two in a race for the same claim.

    python -m tests.crash.racer

prints `READY`; for each line `TAKE MOMENT` on standard input it submits that take at that moment (seconds since the
epoch), and prints the generation's id and how many requests it sent for it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import tasks.reconcile
import tasks.submit
from tasks.fetch import fetch
from tasks.jobs import Job, Request, job_id
from tasks.provider import Provider
from tasks.settings import load_settings
from tasks.validate import validate
from tasks.workspace import Workspace, open_workspace


async def race(left: str, right: str) -> None:
    """One submission a line, until standard input ends."""
    for module in (tasks.reconcile, tasks.submit):
        vars(module)["NEIGHBOUR_LOOK_S"] = 0.02
    sent = _count_requests()
    async with open_workspace(load_settings()) as workspace:
        first = await _looked_at(left, right, workspace)
        print("READY", flush=True)  # noqa: T201 - the parent reads it
        while line := await asyncio.to_thread(sys.stdin.readline):
            take, moment = line.split()
            request, before = _take(first, int(take)), len(sent)
            while time.time() < float(moment):
                pass  # no sleep wakes up as exactly
            generation = await tasks.submit.submit(request, workspace)
            print(generation.id, len(sent) - before, flush=True)  # noqa: T201


async def _looked_at(left: str, right: str, workspace: Workspace) -> Request:
    job = Job(effect="hug", images=(left, right))
    limit = workspace.catalogue.provider.images.max_bytes
    sources = await fetch(job.images, workspace.scratch, max_bytes=limit, private_hosts=True)
    return await validate(sources, job, catalogue=workspace.catalogue)


def _take(request: Request, take: int) -> Request:
    hashes = tuple(source.sha256 for source in request.sources)
    identity = job_id(request.effect, hashes, request.duration, request.model, take)
    return request.model_copy(update={"take": take, "job_id": identity})


def _count_requests() -> list[str]:
    sent: list[str] = []
    post = Provider.submit

    async def counted(self: Provider, **named: Any) -> Any:  # noqa: ANN401 - the method's own
        sent.append(named["client_request_id"])
        return await post(self, **named)

    Provider.submit = counted  # type: ignore[method-assign]
    return sent


if __name__ == "__main__":
    asyncio.run(race(*sys.argv[1:]))

"""What holds after every schedule, whatever happened in it."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import TYPE_CHECKING

from tasks.jobs import Record
from tasks.ledger import Failure

if TYPE_CHECKING:
    from tests.crash.world import World


def is_whole(metadata: bytes, video: bytes) -> bool:
    """Whether a video is the one that its metadata speaks of."""
    return Record.model_validate_json(metadata).facts.sha256 == hashlib.sha256(video).hexdigest()


def double_payments(world: World) -> list[str]:
    """Attempts billed twice; jobs billed twice without a failure in between or a person's leave."""
    found = [
        f"{name} was billed {times} times"
        for name, times in world.provider.counters.billed_by_client_request_id.items()
        if times > 1
    ]
    billed = Counter(generation.order.client_request_id or "" for generation in world.provider.book)
    if world.provider.counters.billed != sum(world.provider.counters.billed_by_client_request_id.values()):
        found.append("something was billed without a client request id")
    failed = {generation.order.client_request_id for generation in world.provider.book if generation.outcome == "error"}
    jobs: Counter[str] = Counter()
    for name, times in billed.items():
        if name not in failed and not _was_given_up(world, name):
            jobs[name.split(".")[0]] += times
    found += [f"job {job_id} was paid for {times} times" for job_id, times in jobs.items() if times > 1]
    return found


def lost_videos(world: World, promised: set[str], *, log_is_honest: bool) -> list[str]:
    """Videos that the provider made and that are not in the target, though their ids are known or in its log.

    Args:
        world: after everything was taken up once more.
        promised: ids that a run has told of.
        log_is_honest: whether the provider's log shows every submission.
    """
    lost = []
    for generation in world.provider.book:
        name = generation.order.client_request_id or ""
        job_id, _, attempt = name.split(".")
        folder = f"hug/{job_id}"
        if generation.outcome != "video" or f"{folder}/metadata.json" in world.files or _was_given_up(world, name):
            continue
        if log_is_honest or generation.id in promised or f"{folder}/attempts/{attempt}/generation.json" in world.files:
            lost.append(f"the video of {name} was made and is not in the target")
    return lost


def _was_given_up(world: World, client_request_id: str) -> bool:
    """Whether a person allowed another submission in place of this one."""
    job_id, _, attempt = client_request_id.split(".")
    found = world.files.get(f"hug/{job_id}/attempts/{attempt}/failure.json")
    return found is not None and Failure.model_validate_json(found[0]).kind == "abandoned"

"""Reconcile: what became of a submission whose answer is missing. A money path: nothing here ever sends one.

A claim without an id is somebody at work, somebody dead, or an answer that was lost. The provider's log may know;
where it does not, the outcome is unknown, and only a person may allow another submission.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from tasks.errors import EffectsError, StorageError, SubmitUnknown
from tasks.jobs import Generation, Request, now
from tasks.ledger import CLAIM_VALID_S, RESUBMIT_AFTER_S, Failure, Standing
from tasks.provider import SUBMIT_TOTAL_S

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from tasks.provider import Provider
    from tasks.workspace import Workspace

log = logging.getLogger("effects")

NEIGHBOUR_S = CLAIM_VALID_S + SUBMIT_TOTAL_S + 15.0
"""How long another process may take from its claim to having kept the provider's answer."""

AT_WORK_S = 3.0
"""So long a submission usually takes: a claim that is older may have lost its process."""

NEIGHBOUR_LOOK_S = 0.5
RECONCILE_PAUSES_S = (0.0, 2.0, 5.0)
"""A submission may show up in the provider's log a little late."""


async def await_neighbour(request: Request, standing: Standing, workspace: Workspace) -> Generation | None:
    """Somebody else holds the claim: give it the time that a submission takes, then look the submission up.

    Returns:
        The generation, or None where the ledger has moved on and is to be read again.
    """
    clock = asyncio.get_running_loop().time
    waited_from, attempt = clock(), standing.attempt
    sent_s = (now() - standing.claimed_from).total_seconds() + NEIGHBOUR_S if standing.claimed_from else None
    log.info("attempt %d is being submitted elsewhere, or was", attempt, extra=about(request))
    if standing.claimed_at and (now() - standing.claimed_at).total_seconds() > AT_WORK_S:
        with contextlib.suppress(EffectsError):  # an early look: what it does not find may still come
            if found := await reconcile(request, attempt, sent_s, workspace.provider):
                await keep_generation(found, workspace)
                return found
    while True:
        age = (now() - standing.claimed_at).total_seconds() if standing.claimed_at else NEIGHBOUR_S
        # A clock that runs ahead must not make us wait for ever.
        age = max(age, clock() - waited_from)
        if age >= NEIGHBOUR_S:
            return await look_up(request, attempt, workspace, because="its submitter is gone", age_s=sent_s)
        await asyncio.sleep(NEIGHBOUR_LOOK_S)
        current = await workspace.ledger.standing(request)
        if (current.attempt, current.stage) != (standing.attempt, "claimed"):
            return current.generation


async def look_up(
    request: Request, attempt: int, workspace: Workspace, *, because: str, age_s: float | None = NEIGHBOUR_S
) -> Generation:
    """Find a submission whose answer is missing, or say that its outcome is unknown."""
    trouble = ""
    for pause in RECONCILE_PAUSES_S:
        await asyncio.sleep(pause)
        try:
            found = await reconcile(request, attempt, age_s, workspace.provider)
        except EffectsError as error:
            trouble = error.reason
            continue
        trouble = ""
        if found:
            await keep_generation(found, workspace)
            return found
    shown = f"the provider's log cannot be read ({trouble})" if trouble else "the provider's log does not show it"
    unknown = SubmitUnknown(
        f"{because}, and {shown}: it may have been paid for", job_id=request.job_id, attempt=attempt
    )
    unknown.looked_up = not trouble
    raise unknown


async def allow_resubmission(request: Request, workspace: Workspace) -> None:
    """A person allows a submission whose outcome is unknown to be given up, so that the next attempt may open.

    It may turn out to have been paid for. A claim that is younger than `RESUBMIT_AFTER_S` is not given up: whoever
    holds it might still send.

    Raises:
        SubmitUnknown: where the claim is too young, or nobody can tell how old it is.
    """
    standing = await workspace.ledger.standing(request)
    if standing.stage != "claimed":
        return
    # By the later of the two clocks: a claim must not look older than it is.
    age = (now() - standing.claimed_at).total_seconds() if standing.claimed_at else 0.0
    if age < RESUBMIT_AFTER_S:
        raise SubmitUnknown(
            f"it is too young to be sent again: {age / 60:.0f} of {RESUBMIT_AFTER_S / 60:.0f} minutes have passed",
            job_id=request.job_id,
            attempt=standing.attempt,
        )
    failure = Failure(
        kind="abandoned",
        reason="its outcome is unknown, and another submission was allowed",
        again=True,
        counts=False,
        at=now(),
    )
    await workspace.ledger.record_failure(request, standing.attempt, failure)


async def reconcile(request: Request, attempt: int, age_s: float | None, provider: Provider) -> Generation | None:
    """Look a submission up whose answer is missing; None where the provider's log does not have it (yet).

    Args:
        request: the job.
        attempt: whose outcome is unknown.
        age_s: how long ago it was claimed at most, seconds; None where nobody knows.
        provider: whose log to read.
    """
    row = await provider.log.find(request.client_request_id(attempt), age_s=age_s)
    if row is None or row.generation_id is None:
        return None
    return Generation(
        request=request,
        attempt=attempt,
        id=row.generation_id,
        submitted_at=now(),
        cost_usd=row.cost_usd,
        found_in_log=True,
    )


async def keep_generation(generation: Generation, workspace: Workspace) -> None:
    """Write the id down: it is worth money.

    Raises:
        StorageError: the target stays away. The provider's log still has the submission, by its derived id.
    """
    try:
        await to_the_end(workspace.ledger.record_generation(generation))
    except StorageError as error:
        error.job_id, error.attempt = generation.request.job_id, generation.attempt
        error.generation_id = generation.id
        raise


async def to_the_end(write: Coroutine[Any, Any, None]) -> None:
    """A write that a cancelled run still waits for, and only then is cancelled."""
    writing = asyncio.ensure_future(write)
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        await writing
        raise


def about(request: Request) -> dict[str, object]:
    """What a log line is about, for who shows progress."""
    return {"effect": request.effect, "job_id": request.job_id}

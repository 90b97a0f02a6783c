"""Submit: the only step that costs money. Read the ledger's rules before changing a line.

No retries and no time-out by Prefect: either could send a second paid request while the first is under way. What
may be repeated is decided here, request by request: only what surely never left, or was refused with a 429.
"""

from __future__ import annotations

import asyncio
import logging
import random
from itertools import count
from typing import TYPE_CHECKING

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.delivery import deliver
from tasks.errors import (
    AccountTrouble,
    EffectsError,
    GenerationFailed,
    ProviderBusy,
    Rejected,
    StorageError,
    SubmitUnknown,
)
from tasks.jobs import Generation, Request, now
from tasks.ledger import CLAIM_VALID_S, RESUBMIT_AFTER_S, Failure, Standing

if TYPE_CHECKING:
    from tasks.answers import Submission
    from tasks.ledger import Claim
    from tasks.provider import Provider
    from tasks.workspace import Workspace

log = logging.getLogger("effects")

SEND_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Between repeats of a request that was not accepted; the last repeats until the claim runs out."""

NEIGHBOUR_S = CLAIM_VALID_S + 90.0
"""How long another process may take from its claim to the provider's answer: its claim and the read time-out."""

NEIGHBOUR_LOOK_S = 0.5
KEEP_PAUSES_S = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
RECONCILE_PAUSES_S = (0.0, 2.0, 5.0)
"""A submission may show up in the provider's log a little late."""


@task(name="submit", cache_policy=NO_CACHE, retries=0)
async def submit_generation(request: Request, workspace: Workspace) -> Generation:
    """Pay for the next attempt of a job, at most once; a job that is under way already is taken up as it stands.

    Raises:
        AccountTrouble, ProviderBusy: nothing was accepted, the job is deferred.
        Rejected, GenerationFailed: the provider said no, and no further attempt is allowed.
        SubmitUnknown: it may have been paid for; it is never sent again by itself.
        StorageError: the target cannot be written; where it has no generation id, nothing was sent.
        BadInput, BudgetSpent: an image cannot be delivered, the budget does not reach; nothing was sent.
    """
    return await submit(request, workspace)


async def submit(request: Request, workspace: Workspace) -> Generation:
    """The step's logic. Every turn of the loop starts from what the ledger says."""
    ledger = workspace.ledger
    await ledger.open(request)
    while True:
        standing = await ledger.standing(request)
        if standing.stage == "generating" and standing.generation:
            log.info("attempt %d is under way already", standing.attempt, extra=_about(request))
            return standing.generation
        if standing.stage == "claimed":
            found = await _await_neighbour(request, standing, workspace)
            if found:
                return found
            continue
        if final := _final(standing, request, workspace.settings.max_attempts):
            await workspace.end(request)
            raise final
        if workspace.trouble:
            raise type(workspace.trouble)(workspace.trouble.reason)
        attempt = standing.attempt + 1
        # All that takes time or can fail comes before the claim.
        workspace.budget.hold(request.job_id, attempt, request.price_usd)
        try:
            urls = await deliver(request, workspace.settings)
            claim = await ledger.claim(request, attempt)
        except BaseException:
            workspace.budget.let_go(request.job_id, attempt)
            raise
        if claim:
            return await _send(claim, urls, workspace)
        workspace.budget.let_go(request.job_id, attempt)


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


async def reconcile(request: Request, attempt: int, age_s: float, provider: Provider) -> Generation | Failure | None:
    """Look a submission up whose answer is missing; None where the provider's log does not have it (yet).

    Args:
        request: the job.
        attempt: whose outcome is unknown.
        age_s: how long ago it was claimed, seconds.
        provider: whose log to read.
    """
    row = await provider.log.find(request.client_request_id(attempt), age_s=age_s)
    if row is None:
        return None
    if row.generation_id is None:
        if row.succeeded:
            return None
        return Failure(kind="refused", reason="the provider's log has it as failed", again=True, counts=True, at=now())
    return Generation(
        request=request,
        attempt=attempt,
        id=row.generation_id,
        submitted_at=now(),
        cost_usd=row.cost_usd,
        found_in_log=True,
    )


async def _send(claim: Claim, urls: tuple[str, ...], workspace: Workspace) -> Generation:
    """Send what is claimed, and keep the answer before anything else is done with it."""
    request, attempt, ledger = claim.request, claim.attempt, workspace.ledger
    try:
        submission = await _post(claim, urls, workspace.provider)
    except SubmitUnknown as unknown:
        # The answer is lost, the submission perhaps not: its id may be in the provider's log.
        return await _look_up(request, attempt, workspace, because=unknown.reason)
    except (EffectsError, asyncio.CancelledError) as error:
        failure = _nothing_accepted(error)
        if failure is None:  # cancelled while the request was on its way: the outcome is unknown
            raise
        workspace.budget.let_go(request.job_id, attempt)
        if isinstance(error, AccountTrouble):
            workspace.trouble = error
        await asyncio.shield(ledger.record_failure(request, attempt, failure))
        if isinstance(error, Rejected):
            await workspace.end(request)
        if isinstance(error, EffectsError):
            error.job_id, error.attempt = request.job_id, attempt
        raise
    generation = Generation(
        request=request,
        attempt=attempt,
        id=submission.id,
        status=submission.status,
        submitted_at=now(),
        cost_usd=submission.cost_usd,
    )
    workspace.budget.correct(request.job_id, attempt, submission.cost_usd)
    await _keep(generation, workspace)
    paid = f", ${submission.cost_usd:.2f} held" if submission.cost_usd is not None else ""
    log.info("attempt %d submitted as %s%s", attempt, submission.id, paid, extra=_about(request))
    return generation


async def _keep(generation: Generation, workspace: Workspace) -> None:
    """Write the id down, through a target that is away for a moment: it is worth money.

    Raises:
        StorageError: the target stays away. The provider's log still has the submission, by its derived id.
    """
    for pause in (*KEEP_PAUSES_S, None):
        try:
            # Shielded: a cancelled run must not drop it.
            await asyncio.shield(workspace.ledger.record_generation(generation))
        except StorageError as error:
            if pause is None:
                error.job_id, error.attempt = generation.request.job_id, generation.attempt
                error.generation_id = generation.id
                raise
            await asyncio.sleep(pause)
        else:
            return


async def _post(claim: Claim, urls: tuple[str, ...], provider: Provider) -> Submission:
    """Send while the claim holds, again only after what was surely not accepted."""
    request, last = claim.request, None
    for n in count():
        if claim.left_s() <= 0:
            reason = last.reason if last else "this process was held up for too long between its claim and the request"
            raise ProviderBusy(f"nothing was sent in time: {reason}")
        try:
            return await _once(claim, urls, provider)
        except ProviderBusy as busy:
            last = busy
            log.warning("attempt %d was not accepted: %s", claim.attempt, busy.reason, extra=_about(request))
        pause = last.retry_after or SEND_PAUSES_S[min(n, len(SEND_PAUSES_S) - 1)] * random.uniform(0.7, 1.3)  # noqa: S311
        if pause >= claim.left_s():
            raise ProviderBusy(last.reason, retry_after=last.retry_after)
        await asyncio.sleep(pause)
    raise AssertionError("the claim runs out before the count does")


async def _once(claim: Claim, urls: tuple[str, ...], provider: Provider) -> Submission:
    request = claim.request
    try:
        return await provider.submit(
            model=request.model,
            scene=request.effect,
            image_urls=urls,
            duration=request.duration,
            client_request_id=request.client_request_id(claim.attempt),
        )
    except asyncio.CancelledError as cancelled:
        # Whether it had left by then cannot be told: not a request that was surely never sent.
        raise _CancelledOnItsWay from cancelled


class _CancelledOnItsWay(asyncio.CancelledError):
    """The run was cancelled while the paid request was under way."""


def _nothing_accepted(error: BaseException) -> Failure | None:
    """How the ledger remembers an attempt of which surely nothing was accepted; None where that is not sure."""
    if isinstance(error, _CancelledOnItsWay):
        return None
    if isinstance(error, Rejected):
        return Failure(kind="refused", reason=error.reason, again=False, counts=True, at=now())
    if isinstance(error, AccountTrouble):
        return Failure(kind="account", reason=error.reason, again=True, counts=False, at=now())
    reason = str(error) or "the run was cancelled before anything was sent"
    return Failure(kind="never_sent", reason=reason, again=True, counts=False, at=now())


async def _await_neighbour(request: Request, standing: Standing, workspace: Workspace) -> Generation | None:
    """Somebody else holds the claim: give it the time that a submission takes, then look the submission up.

    Returns:
        The generation, or None where the ledger has moved on and is to be read again.
    """
    clock = asyncio.get_running_loop().time
    waited_from = clock()
    log.info("attempt %d is being submitted elsewhere", standing.attempt, extra=_about(request))
    while True:
        age = (now() - standing.claimed_at).total_seconds() if standing.claimed_at else NEIGHBOUR_S
        # A clock that runs ahead must not make us wait for ever.
        age = max(age, clock() - waited_from)
        if age >= NEIGHBOUR_S:
            return await _look_up(request, standing.attempt, workspace, because="its submitter is gone", age_s=age)
        await asyncio.sleep(NEIGHBOUR_LOOK_S)
        current = await workspace.ledger.standing(request)
        if (current.attempt, current.stage) != (standing.attempt, "claimed"):
            return current.generation


async def _look_up(
    request: Request, attempt: int, workspace: Workspace, *, because: str, age_s: float = NEIGHBOUR_S
) -> Generation:
    """Find a submission whose answer is missing, or say that its outcome is unknown."""
    trouble = ""
    for pause in RECONCILE_PAUSES_S:
        await asyncio.sleep(pause)
        try:
            found = await reconcile(request, attempt, age_s, workspace.provider)
        except EffectsError as error:
            trouble = f" ({error.reason})"
            continue
        if isinstance(found, Generation):
            await _keep(found, workspace)
            return found
        if found:
            workspace.budget.let_go(request.job_id, attempt)
            await workspace.ledger.record_failure(request, attempt, found)
            raise GenerationFailed(found.reason, final=False, job_id=request.job_id, attempt=attempt)
    raise SubmitUnknown(
        f"{because}, and the provider's log does not show it{trouble}: it may have been paid for",
        job_id=request.job_id,
        attempt=attempt,
    )


def _final(standing: Standing, request: Request, max_attempts: int) -> EffectsError | None:
    """The error that the job ends in where no further attempt is allowed, else None."""
    failure = standing.failure
    if failure is None or (failure.again and standing.tries < max_attempts):
        return None
    if failure.kind == "refused" and not failure.again:
        return Rejected(failure.reason, job_id=request.job_id, attempt=standing.attempt)
    tries = f" ({standing.tries} of {max_attempts} attempts)" if failure.again else ""
    return GenerationFailed(
        f"{failure.reason}{tries}",
        kind=failure.kind,
        final=True,
        job_id=request.job_id,
        generation_id=failure.generation_id,
        attempt=standing.attempt,
    )


def _about(request: Request) -> dict[str, object]:
    """What a log line is about, for who shows progress."""
    return {"effect": request.effect, "job_id": request.job_id}

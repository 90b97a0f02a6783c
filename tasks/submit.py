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
    SubmitUnknown,
)
from tasks.jobs import Generation, Request, now
from tasks.ledger import Failure, Standing
from tasks.reconcile import NEIGHBOUR_LOOK_S, about, await_neighbour, keep_generation, look_up, to_the_end
from tasks.visibility import named

if TYPE_CHECKING:
    from tasks.answers import Submission
    from tasks.ledger import Claim
    from tasks.provider import Provider
    from tasks.settings import Settings
    from tasks.workspace import Workspace

log = logging.getLogger("effects")

SEND_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Between repeats of a request that was not accepted; the last repeats until the claim runs out."""


@task(name="submit", task_run_name=named("submit"), cache_policy=NO_CACHE, persist_result=False, retries=0)
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
            log.info("attempt %d is under way already", standing.attempt, extra=about(request))
            return standing.generation
        if standing.stage == "claimed":
            found = await await_neighbour(request, standing, workspace)
            if found:
                return found
            continue
        if final := final_error(standing, request, workspace.settings):
            await workspace.end(request)
            raise final
        if workspace.trouble:
            raise type(workspace.trouble)(workspace.trouble.reason)
        attempt = standing.attempt + 1
        # All that takes time or can fail comes before the claim.
        workspace.budget.hold(request.job_id, attempt, request.price_usd)
        try:
            urls = await deliver(request, workspace.settings)
            claim = await _claim(request, attempt, workspace)
        except BaseException:
            workspace.budget.let_go(request.job_id, attempt)
            raise
        if claim:
            return await _send(claim, urls, workspace)
        workspace.budget.let_go(request.job_id, attempt)
        await asyncio.sleep(NEIGHBOUR_LOOK_S)


async def _claim(request: Request, attempt: int, workspace: Workspace) -> Claim | None:
    """Claim; a run that is cancelled meanwhile gives a claim that it won back, since nothing was sent."""
    claiming = asyncio.ensure_future(workspace.ledger.claim(request, attempt))
    try:
        return await asyncio.shield(claiming)
    except asyncio.CancelledError:
        if await claiming:
            await workspace.ledger.record_failure(request, attempt, Failure.never_sent("the run was cancelled"))
        raise


async def _send(claim: Claim, urls: tuple[str, ...], workspace: Workspace) -> Generation:
    """Send what is claimed, and keep the answer before anything else is done with it."""
    request, attempt = claim.request, claim.attempt
    try:
        submission = await _post(claim, urls, workspace)
    except SubmitUnknown as unknown:
        # The answer is lost, the submission perhaps not: its id may be in the provider's log.
        return await look_up(request, attempt, workspace, because=unknown.reason)
    except (EffectsError, asyncio.CancelledError) as error:
        failure = _nothing_accepted(error, workspace)
        if failure is None:  # cancelled while the request was on its way: the outcome is unknown
            raise
        workspace.budget.let_go(request.job_id, attempt)
        if isinstance(error, AccountTrouble):
            workspace.trouble = error
        await to_the_end(workspace.ledger.record_failure(request, attempt, failure))
        if isinstance(error, Rejected):
            await workspace.end(request)
        if isinstance(error, EffectsError):
            error.job_id, error.attempt = request.job_id, attempt
        raise
    paid = f", ${submission.cost_usd:.2f} held" if submission.cost_usd is not None else ""
    log.info("attempt %d submitted as %s%s", attempt, submission.id, paid, extra=about(request))
    workspace.budget.correct(request.job_id, attempt, submission.cost_usd)
    generation = Generation(
        request=request,
        attempt=attempt,
        id=submission.id,
        status=submission.status,
        submitted_at=now(),
        cost_usd=submission.cost_usd,
    )
    await keep_generation(generation, workspace)
    return generation


async def _post(claim: Claim, urls: tuple[str, ...], workspace: Workspace) -> Submission:
    """Send while the claim holds, again only after what was surely not accepted."""
    request, last = claim.request, None
    for n in count():
        if claim.left_s() <= 0:
            reason = last.reason if last else "this process was held up for too long between its claim and the request"
            raise ProviderBusy(f"nothing was sent in time: {reason}")
        if workspace.trouble:
            raise type(workspace.trouble)(workspace.trouble.reason)
        try:
            return await _once(claim, urls, workspace.provider)
        except ProviderBusy as busy:
            last = busy
            log.warning("attempt %d was not accepted: %s", claim.attempt, busy.reason, extra=about(request))
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


def _nothing_accepted(error: BaseException, workspace: Workspace) -> Failure | None:
    """How the ledger remembers an attempt of which surely nothing was accepted; None where that is not sure."""
    if isinstance(error, _CancelledOnItsWay):
        return None
    if isinstance(error, Rejected):
        return Failure(
            kind="refused",
            reason=error.reason,
            again=False,
            counts=True,
            delivery=workspace.settings.delivery,
            at=now(),
        )
    if isinstance(error, AccountTrouble):
        return Failure(kind="account", reason=error.reason, again=True, counts=False, at=now())
    return Failure.never_sent(str(error) or "the run was cancelled")


def final_error(standing: Standing, request: Request, settings: Settings) -> EffectsError | None:
    """The error that the job ends in where no further attempt is allowed, else None."""
    failure, max_attempts = standing.failure, settings.max_attempts
    if failure is None or (failure.again and standing.tries < max_attempts):
        return None
    if failure.delivery and failure.delivery != settings.delivery:
        return None  # refused with the photos delivered in another way: it is not the same request any more
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

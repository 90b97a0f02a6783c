"""What became of a job, as its outcome and as its flow run's state."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from prefect.context import FlowRunContext
from prefect.states import Completed, Failed

from tasks.answers import one_line
from tasks.errors import EffectsError, GenerationTimeout, SubmitUnknown
from tasks.jobs import Outcome, Record, Request, Summary

if TYPE_CHECKING:
    from uuid import UUID

    from prefect.client.schemas.objects import State

    from tasks.workspace import Workspace

T = TypeVar("T")

log = logging.getLogger("effects")


_ended: OrderedDict[UUID, Outcome | Summary] = OrderedDict()
"""What the latest flow runs of this process came to, by their ids."""

REMEMBERED = 100

FOR_A_PERSON = frozenset({"rejected", "failed", "unknown", "deferred"})
"""States in which nothing more happens by itself."""


def there(record: Record, state: Literal["completed", "reused"], workspace: Workspace, seconds: float) -> Outcome:
    """The outcome of a job whose video is there; `seconds` is how long this run took over it."""
    return Outcome(
        state=state,
        job_id=record.job_id,
        effect=record.effect,
        generation_id=record.generation_id,
        attempt=record.attempt,
        video=record.video,
        metadata=workspace.ledger.url_of(record, "metadata.json"),
        cost_usd=workspace.budget.spent_on(record.job_id) if state == "completed" else 0.0,
        seconds=round(seconds, 3),
        looks=record.looks if state == "completed" else 0,
    )


async def not_there(
    effect: str, request: Request | None, error: Exception, workspace: Workspace, seconds: float
) -> Outcome:
    """The outcome of a job that ended in an error, with what this run has committed for it.

    An error that does not know of a generation is asked against the ledger: a job that is under way is open, and one
    whose answer is missing is unknown, whatever it was that went wrong.
    """
    if not isinstance(error, EffectsError):
        log.error("unexpected", exc_info=error, extra={"effect": effect})
        error = EffectsError(f"unexpected {type(error).__name__}: {one_line(error)}")
    if request and error.generation_id is None and error.state in {"deferred", "rejected"}:
        error = await _as_the_ledger_has_it(request, error, workspace)
    outcome = Outcome.from_error(effect, error, request=request)
    spent = workspace.budget.spent_on(outcome.job_id) if outcome.job_id else 0.0
    return outcome.model_copy(update={"cost_usd": spent, "seconds": round(seconds, 3)})


def as_state(outcome: Outcome) -> State[Outcome]:
    """The flow run's state: failed only where somebody has to act, and the reason in its message."""
    _remember(outcome)
    kind = Failed if outcome.state in FOR_A_PERSON else Completed
    return kind(name=outcome.state.capitalize(), message=outcome.video or outcome.reason, data=outcome)


def summary_state(summary: Summary) -> State[Any]:
    """Failed only where a person has to act; the counts in the message."""
    _remember(summary)
    if FOR_A_PERSON.intersection(summary.counts):
        return Failed(message=summary.line, data=summary)
    return Completed(message=summary.line, data=summary)


def summary_of(state: State[Any]) -> Summary:
    """The summary that a flow run's state carries.

    Raises:
        EffectsError: where the run ended before it had one.
    """
    return carried(state, Summary)


def outcome_of(state: State[Any]) -> Outcome:
    """The outcome that a flow run's state carries.

    Raises:
        EffectsError: where the run ended before it had one.
    """
    return carried(state, Outcome)


def carried(state: State[Any], kind: type[T]) -> T:
    """What a flow run's state carries.

    Raises:
        EffectsError: where the run ended before it had one.
    """
    data = getattr(state.data, "result", state.data)
    if not isinstance(data, (kind, EffectsError)) and state.state_details.flow_run_id:
        # A server that was told twice, since its first answer got lost, gives back the state as it has it: bare.
        data = _ended.get(state.state_details.flow_run_id)
    if isinstance(data, kind):
        return data
    if isinstance(data, EffectsError):
        raise data
    raise EffectsError(f"the flow run ended as {state.name}: {state.message}")


def _remember(ended: Outcome | Summary) -> None:
    if run := FlowRunContext.get():
        _ended[run.flow_run.id] = ended  # type: ignore[union-attr]
        while len(_ended) > REMEMBERED:
            _ended.popitem(last=False)


async def _as_the_ledger_has_it(request: Request, error: EffectsError, workspace: Workspace) -> EffectsError:
    try:
        standing = await workspace.ledger.standing(request)
    except EffectsError:
        return error
    if standing.stage == "generating" and standing.generation:
        open_: EffectsError = GenerationTimeout(error.reason, generation_id=standing.generation.id)
        open_.job_id, open_.attempt = request.job_id, standing.attempt
        return open_
    if standing.stage == "claimed":
        return SubmitUnknown(error.reason, job_id=request.job_id, attempt=standing.attempt)
    return error

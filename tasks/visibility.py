"""What the Prefect dashboard shows of a step: why it waits, and one line in place of a traceback."""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from prefect import states, task_engine
from prefect.context import FlowRunContext

from tasks.errors import EffectsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

    Condition = Callable[[Task[..., Any], TaskRun, State[Any]], bool]

_why_waiting: ContextVar[str | None] = ContextVar("why_waiting", default=None)


about_job: ContextVar[str] = ContextVar("about_job", default="")
"""What the task runs that start from here are about: the effect, or the row of a batch."""

watched = logging.getLogger("effects_looks")
"""For who watches as it happens; Prefect logs each retry itself, so these lines need not reach it."""


@contextmanager
def on_its_own(about: str) -> Iterator[None]:
    """Task runs in here are about this one item of many, and are forgotten by this process when it has ended.

    Prefect keeps the state of every task's result until the flow run ends, to draw who used whose: some 20 kB a job,
    and no job of a batch uses another's.
    """
    about_job.set(about)
    flow_run = FlowRunContext.get()
    with flow_run.model_copy(update={"run_results": {}}) if flow_run else nullcontext():
        yield


def named(step: str) -> Callable[[], str]:
    """A name for task runs that can be read in the dashboard: the step, and what it is about."""

    def name() -> str:
        return f"{step} {about_job.get()}".strip()

    return name


def retry_if(worth_it: Callable[[BaseException], bool]) -> Condition:
    """A retry condition for a task: retried where `worth_it(error)`, with the error's line as the state's message."""

    def condition(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
        error = state.data
        if not isinstance(error, BaseException) or not worth_it(error):
            return False
        _why_waiting.set(str(error))
        return True

    return condition


def _awaiting_retry(scheduled_time: datetime | None = None) -> State[Any]:
    message = _why_waiting.get()
    _why_waiting.set(None)
    return states.AwaitingRetry(scheduled_time=scheduled_time, message=message)


# Prefect's engine leaves AwaitingRetry without a message, and no hook runs in between; but what a person asks of
# a waiting run is exactly why it waits. Without this line only that message is missing; a test looks at it.
task_engine.AwaitingRetry = _awaiting_retry  # type: ignore[assignment, attr-defined]


class _OneLine(logging.Filter):
    """Our own errors say everything in one line: their tracebacks help nobody."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], EffectsError):
            record.exc_info = None
        return True


# What the steps say reaches the dashboard (PREFECT_LOGGING_EXTRA_LOGGERS) only from the level on that is set for them.
logging.getLogger("effects").setLevel(logging.INFO)

for _name in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(_name).addFilter(_OneLine())

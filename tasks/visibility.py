"""What the Prefect dashboard shows of a step: why it waits, and one line in place of a traceback."""

from __future__ import annotations

import logging
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from prefect import states, task_engine
from prefect.context import FlowRunContext

from tasks.bulk import tell_in_bulk
from tasks.errors import EffectsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from prefect.client.schemas.objects import State, TaskRun
    from prefect.events import Event
    from prefect.tasks import Task

    Condition = Callable[[Task[..., Any], TaskRun, State[Any]], bool]

_why_waiting: ContextVar[str | None] = ContextVar("why_waiting", default=None)


FINISHED = "Finished in state "
"""How Prefect's line begins that each task run ends with."""

about_job: ContextVar[str] = ContextVar("about_job", default="")
"""What the task runs that start from here are about: the effect, or the row of a batch."""

_one_of_many: ContextVar[bool] = ContextVar("one_of_many", default=False)

watched = logging.getLogger("effects_looks")
"""For who watches as it happens; Prefect logs each retry itself, so these lines need not reach it."""


@contextmanager
def on_its_own(about: str) -> Iterator[None]:
    """Task runs in here are about this one item of many, and are forgotten by this process when it has ended.

    Prefect keeps the state of every task's result until the flow run ends, to draw who used whose: some 20 kB a job,
    and no job of a batch uses another's. Nor does the log of so many say of each step that it went well.
    """
    about_job.set(about)
    _one_of_many.set(True)
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


_tell = task_engine.emit_task_run_state_change_event  # type: ignore[attr-defined]


def _tell_of_what_lasts(
    task_run: TaskRun, initial_state: State[Any] | None, validated_state: State[Any], follows: Event | None = None
) -> Event | None:
    if initial_state is None and validated_state.is_pending():
        return None
    return _tell(task_run, initial_state, validated_state, follows)


# Each step runs as soon as it is called: that it was pending for a millisecond is a third of all that the server is
# told of it, and is shown nowhere. A test looks at what the dashboard has of a run.
task_engine.emit_task_run_state_change_event = _tell_of_what_lasts  # type: ignore[attr-defined]


# What is shown in the dashboard arrives a tenth of a second later, and the work has the interpreter for itself.
tell_in_bulk()


class _OneLine(logging.Filter):
    """Our own errors say everything in one line: their tracebacks help nobody."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], EffectsError):
            record.exc_info = None
        return True


class _WhatWentWell(logging.Filter):
    """In a batch it goes without saying that a step has completed: the states tell, and the log can be read."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (_one_of_many.get() and record.levelno == logging.INFO and str(record.msg).startswith(FINISHED))


# What the steps say reaches the dashboard (PREFECT_LOGGING_EXTRA_LOGGERS) only from the level on that is set for them.
logging.getLogger("effects").setLevel(logging.INFO)

logging.getLogger("prefect.task_runs").addFilter(_WhatWentWell())

for _name in ("prefect.task_runs", "prefect.flow_runs"):
    logging.getLogger(_name).addFilter(_OneLine())

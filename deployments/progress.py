"""What a person sees while jobs are under way: a live table on a terminal, plain lines elsewhere; always stderr."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

MARKS = {"completed": ("✓", "green"), "reused": ("✓", "green"), "open": ("…", "yellow")}
FAILED_MARK = ("✗", "red")
SHORT_ID = 8
"""Hex digits that tell one job from another to a person."""


class Progress(logging.Handler):
    """Listens to the steps' log (`effects`) while it is used as a context manager.

    Args:
        jobs: a line each, by effect. With none named, each job gets a line of its own once it is heard of, by effect
            and the beginning of its id.
        console: in place of stderr.
    """

    def __init__(self, jobs: tuple[str, ...] = (), console: Console | None = None) -> None:
        super().__init__(logging.INFO)
        self._console = console or Console(stderr=True)
        self._grows = not jobs
        self._lines = dict.fromkeys(jobs, "waits for its turn")
        self._begun = dict.fromkeys(jobs, time.monotonic())
        self._ends: dict[str, tuple[str, float]] = {}
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=8, transient=True)
        self._logs = tuple(logging.getLogger(name) for name in ("effects", "effects_looks"))

    def __enter__(self) -> Self:
        for log in self._logs:
            log.addHandler(self)
            log.setLevel(logging.INFO)
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        for log in self._logs:
            log.removeHandler(self)
        if self._console.is_terminal:
            self._live.stop()

    def emit(self, record: logging.LogRecord) -> None:
        """Show what a step logged of a job; warnings of no job are printed."""
        job, text = self._job(record), record.getMessage()
        if job in self._lines:
            self._lines[job] = text
            if state := getattr(record, "ended", ""):
                self._ends[job] = (state, time.monotonic() - self._begun[job])
        if not self._console.is_terminal or record.levelno >= logging.WARNING:
            self._console.print(Text(f"{job}: {text}" if job else text), soft_wrap=True)

    def say(self, job: str, text: str, *, ended: str = "") -> None:
        """Show what a job is at."""
        self.emit(logging.makeLogRecord({"msg": text, "effect": job, "levelno": logging.INFO, "ended": ended}))

    def end(self, job: str, state: str) -> None:
        """Show how a job ended."""
        self.say(job, state, ended=state)

    def _job(self, record: logging.LogRecord) -> str:
        """The line that a record belongs to."""
        effect, job_id = getattr(record, "effect", ""), getattr(record, "job_id", "")
        if not self._grows or not job_id:
            return effect
        job = f"{effect} {job_id[:SHORT_ID]}"
        self._lines.setdefault(job, "")
        self._begun.setdefault(job, time.monotonic())
        return job

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        jobs, room = list(self._lines), max(self._console.height - 2, 1)
        if hidden := max(len(jobs) - room, 0):  # what is under way first
            jobs = sorted(jobs, key=lambda job: job in self._ends)[:room]
        for job in jobs:
            state, seconds = self._ends.get(job, ("", time.monotonic() - self._begun[job]))
            mark, style = MARKS.get(state, FAILED_MARK)
            sign: RenderableType = Text(mark, style) if state else Spinner("dots")
            table.add_row(sign, Text(job, "bold"), Text(self._lines[job]), Text(f"{seconds:.0f} s", "dim"))
        if hidden:
            table.add_row("", Text(f"and {hidden} more", "dim"))
        return table

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


class Progress(logging.Handler):
    """Listens to the steps' log (`effects`) while it is used as a context manager.

    Args:
        jobs: a line each, by the name that the steps log under: the effect.
        console: in place of stderr.
    """

    def __init__(self, jobs: tuple[str, ...], console: Console | None = None) -> None:
        super().__init__(logging.INFO)
        self._console = console or Console(stderr=True)
        self._lines = dict.fromkeys(jobs, "waits for its turn")
        self._ends: dict[str, tuple[str, float]] = {}
        self._started = time.monotonic()
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
        job, text = getattr(record, "effect", ""), record.getMessage()
        if job in self._lines:
            self._lines[job] = text
        if not self._console.is_terminal or record.levelno >= logging.WARNING:
            self._console.print(Text(f"{job}: {text}" if job else text), soft_wrap=True)

    def say(self, job: str, text: str) -> None:
        """Show what a job is at."""
        self.emit(logging.makeLogRecord({"msg": text, "effect": job, "levelno": logging.INFO}))

    def end(self, job: str, state: str) -> None:
        """Show how a job ended."""
        self._ends[job] = (state, time.monotonic() - self._started)
        self.say(job, state)

    def _table(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for job, text in self._lines.items():
            state, seconds = self._ends.get(job, ("", time.monotonic() - self._started))
            mark, style = MARKS.get(state, FAILED_MARK)
            sign: RenderableType = Text(mark, style) if state else Spinner("dots")
            table.add_row(sign, Text(job, "bold"), Text(text), Text(f"{seconds:.0f} s", "dim"))
        return table

"""One process of the local stack: how it is started, heard, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

READY = "ready"
"""What the runner says when an upload would start a run."""

RESTARTS, WITHIN_S = 3, 120.0
"""So often within so long a part is started again."""


class Part:
    """A program of ours, which ends when its standard input closes.

    Args:
        name: for people.
        command: a module and its arguments, as after `python -m`.
        log: a file for what it says.
        heard: told of each line of its standard output; with `errors` also of its standard error.
        inherited: descriptors that it needs.

    Attributes:
        lifeline: the descriptor whose closing, here and wherever it was inherited, ends it.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        log: Path,
        heard: Callable[[str], None] | None = None,
        errors: bool = False,
        inherited: Sequence[int] = (),
    ) -> None:
        self.name = name
        self._command, self._environment, self._log, self._heard = command, environment, log, heard
        self._errors, self._inherited = errors, inherited
        self._stdin, self.lifeline = os.pipe()
        self._starts: list[float] = []
        self.start()

    def start(self) -> None:
        """Start it, or start it again: what an earlier one has left behind is killed."""
        if self._starts:
            self.kill()
        self._starts.append(time.monotonic())
        self._killed = False
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-m", *self._command],
                stdin=self._stdin,
                stdout=subprocess.PIPE if self._heard else log,
                stderr=subprocess.STDOUT if self._heard and self._errors else log,
                env=self._environment,
                pass_fds=self._inherited,
                start_new_session=True,  # Ctrl-C is for the stack, which then ends its parts in order
            )
        if self._heard:
            threading.Thread(target=self._listen, args=(self.process, self._heard), daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether it is not there any more."""
        return self.process.poll() is not None

    @property
    def worn_out(self) -> bool:
        """Whether it has died so often that starting it again mends nothing."""
        return len([start for start in self._starts if start > time.monotonic() - WITHIN_S]) > RESTARTS

    def end(self, patience_s: float) -> None:
        """End it, and whatever it started; what is left after so many seconds is killed."""
        os.close(self.lifeline)
        os.close(self._stdin)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience_s)
        self.kill()
        self.process.wait()

    def kill(self) -> None:
        """Kill it at once, and whatever it started: they share its process group."""
        if not self._killed:
            self._killed = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def _listen(self, process: subprocess.Popen[bytes], heard: Callable[[str], None]) -> None:
        for line in process.stdout or ():
            with self._log.open("ab") as log:
                log.write(line)
            heard(line.decode(errors="replace").rstrip("\n"))

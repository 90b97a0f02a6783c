"""`python -m deployments.uploads`, as a person or a service manager runs it."""

from __future__ import annotations

import os
import queue
import re
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from deployments.uploads.__main__ import main
from tests.uploads import samples

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SECRET = "correct horse battery"


class Process:
    """The command, and the lines that it says."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def line(self, pattern: str) -> re.Match[str]:
        """The next line in which that is found."""
        while True:
            self.said.append(self._lines.get(timeout=60))
            if found := re.search(pattern, self.said[-1]):
                return found

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self._lines.put(line)


@contextmanager
def running(api: str, *arguments: str) -> Iterator[Process]:
    environment = {**os.environ, "PREFECT_API_URL": api, "EFFECTS_UPLOADS_SECRET": SECRET}
    command = [sys.executable, "-m", "deployments.uploads", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)
    try:
        yield Process(process)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_listens_until_it_is_stopped(tmp_path: Path, prefect_api: str, number: signal.Signals) -> None:
    """Two sources at once, an event from each; the log says what was told, and not the secret; exit code 0."""
    inbox = tmp_path / "inbox"
    options = ("--inbox", str(inbox), "--folder", "--http", "0", "--quiet-s", "0.2")
    with running(prefect_api, *options) as command:
        url = command.line(r"listening on (http://\S+)")[1]
        command.line("watching")
        (inbox / "squish").mkdir()
        (inbox / "squish" / "cat.jpg").write_bytes(b"photo")
        command.line("told Prefect of squish/cat.jpg")
        record = samples.s3_record("squish/dog.jpg")
        record["s3"]["bucket"]["name"] = str(inbox)
        assert httpx.post(f"{url}/uploads?token={SECRET}", json=samples.s3(record)).status_code == 204
        assert httpx.get(f"{url}/health").json()["events"] == 2
        command.process.send_signal(number)
        assert command.process.wait(20) == 0
        command.line("stopped")
    assert not [line for line in command.said if SECRET in line or "Traceback" in line]


def test_it_stops_at_once_while_prefect_is_away(tmp_path: Path) -> None:
    """With an upload in its hands, which the sweep will find."""
    with running("http://127.0.0.1:9/api", "--inbox", str(tmp_path), "--folder", "--quiet-s", "0") as command:
        command.line("watching")
        (tmp_path / "squish").mkdir()
        (tmp_path / "squish" / "cat.jpg").write_bytes(b"photo")
        command.line("does not answer.*1 new wait")
        command.process.terminate()
        assert command.process.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--folder"], "EFFECTS_INBOX"),
        (["--inbox", "s3://photos"], "--folder, --sqs or --http"),
        (["--inbox", "s3://photos", "--health", "0"], "--folder, --sqs or --http"),
        (["--inbox", "s3://photos", "--sqs"], "EFFECTS_UPLOADS_QUEUE"),
        (["--inbox", "s3://photos", "--http", "0"], "EFFECTS_UPLOADS_SECRET"),
        (["--inbox", "s3://photos", "--folder"], "no folder of this machine"),
        (["--inbox", "s3://", "--folder"], "names no bucket"),
    ],
)
def test_what_does_not_fit_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], prefect_api: str
) -> None:
    """And exit code 2."""
    assert prefect_api
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert said in error


@pytest.mark.parametrize(
    "arguments",
    [["--http", "x"], ["--http", "65536"], ["--quiet-s", "-1"], ["--longest-s", "nan"], ["--nothing"], ["nothing"]],
)
def test_bad_arguments(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says which, and exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert error.count("\n") == 1
    assert arguments[0] in error

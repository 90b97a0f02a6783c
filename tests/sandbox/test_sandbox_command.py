"""`python -m deployments.sandbox`, as a person runs it."""

import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from deployments.sandbox.__main__ import main
from deployments.sandbox.server import Sandbox

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(number: signal.Signals) -> None:
    """It prints its URL and a line to copy, serves with the knobs given, and stops with exit code 0."""
    command = [sys.executable, "-m", "deployments.sandbox", "--port", "0", "--key", "secret", "--balance-usd", "7"]
    command += ["--generate-seconds", "9", "--fault", "503@poll:0.5", "--fault", "no_meta"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    first, second = process.stdout.readline(), process.stdout.readline()
    url = second.split()[0].removeprefix("EFFECTS_API_URL=")
    assert url in first
    assert second.split()[1] == "EFFECTS_API_KEY=secret"
    assert httpx.get(f"{url}/v2/billing", headers={"Authorization": "Bearer other"}).status_code == 401
    knobs = httpx.get(f"{url}/sandbox/knobs").json()
    assert (knobs["generate_seconds"], knobs["balance_usd"], knobs["render"]) == (9, 7, True)
    assert [(fault["kind"], fault["route"], fault["rate"]) for fault in knobs["faults"]] == [
        ("503", "poll", 0.5),
        ("no_meta", None, 1),
    ]
    process.send_signal(number)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--port", "x"],
        ["--port", "65536"],
        ["--generate-seconds", "-1"],
        ["--generate-seconds", "nan"],
        ["--balance-usd", "much"],
        ["--fault", "nothing"],
        ["--fault", "503@moon"],
        ["--fault", "503:2"],
        ["--fault", ""],
        ["--nothing"],
        ["nothing"],
    ],
)
def test_bad_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """One line that says which, and exit code 2."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    errors = capsys.readouterr().err
    assert stopped.value.code == 2
    assert errors.count("\n") == 1
    assert arguments[0] in errors


def test_what_it_cannot_use(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A taken port, a directory that is a file or holds something else: one line, and exit code 1."""
    with Sandbox(render=False) as sandbox:
        port = str(urlsplit(sandbox.url).port)
        assert main(["--port", port]) == 1
    assert capsys.readouterr().err == f"sandbox: cannot start: port {port} is taken; choose another with --port\n"
    (tmp_path / "file").touch()
    assert main(["--port", "0", "--state", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    (tmp_path / "generations").mkdir()
    (tmp_path / "generations" / "x.json").write_text("{}")
    assert main(["--port", "0", "--state", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("\n") == 1

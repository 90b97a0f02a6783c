"""Every command of the README does what it says."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tasks.effects import load_catalogue
from tests.conftest import COLLINS, HOPPER

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

README = (Path(__file__).parents[1] / "README.md").read_text()
COMMANDS = [line for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.strip().splitlines()]
SERVERS = {
    "uv run prefect server start": "http://127.0.0.1:4200/api/health",
    "uv run python -m deployments.sandbox": "http://127.0.0.1:8787/v1/models/deprecations",
}
ELSEWHERE = {"pip install uv && uv run effects demo", "uv run pytest"}
"""The demo is run by test_cli.py; the tests are run by whoever reads this, and by `.ci/run`."""

ONE_BY_ONE = [command for command in COMMANDS if command not in SERVERS and command not in ELSEWHERE]


def _environment(**variables: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "DO_NOT_TRACK": "1", **variables}


def test_the_readme_has_its_commands() -> None:
    """The two that do all the set-up stand first; none is left out of these tests."""
    assert COMMANDS[:2] == ["pip install uv && uv run effects demo", "uv run pytest"]
    assert len(ONE_BY_ONE) >= 6
    assert set(SERVERS) <= set(COMMANDS)


def test_the_commands_run_in_their_order(sandbox: Sandbox, prefect_api: str) -> None:
    """A person who follows the README from top to bottom meets no error; one video is bought for each wish."""
    shutil.copy(COLLINS, "left.jpg")
    shutil.copy(HOPPER, "right.jpg")
    Path("jobs.jsonl").write_text(re.findall(r'(\{"effect".*\})', README)[0] + "\n")
    pair = Path("inbox/hug/anna-and-ben")
    pair.mkdir(parents=True)
    shutil.copy(COLLINS, pair / "1.jpg")  # the same wish as `effects generate hug left.jpg right.jpg`
    shutil.copy(HOPPER, pair / "2.jpg")
    for command in ONE_BY_ONE:
        if command.startswith("export "):
            continue
        ended = subprocess.run(
            command.removeprefix("uv run ").split(),
            capture_output=True,
            text=True,
            check=False,
            env=_environment(PREFECT_API_URL=prefect_api),
            timeout=100,
        )
        assert ended.returncode == 0, f"{command}: {ended.stderr}"
    assert sandbox.counters.billed == 2


@pytest.mark.parametrize("command", SERVERS)
def test_the_servers_answer_and_stop(command: str, tmp_path: Path) -> None:
    """Started as printed, they answer where the README says, and end on Ctrl-C."""
    url = SERVERS[command]
    # The README's port may be taken on a machine that is in use: then the free one shows the same.
    port = url.split(":")[2].split("/")[0]
    free = _free_port()
    option = ["--port", str(free)]
    process = subprocess.Popen(
        [*command.removeprefix("uv run ").split(), *option],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=_environment(PREFECT_HOME=str(tmp_path / "prefect"), PREFECT_SERVER_ANALYTICS_ENABLED="false"),
    )
    try:
        assert _answers(url.replace(port, str(free)))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def test_the_catalogue_example_is_one(tmp_path: Path) -> None:
    """What the README shows for EFFECTS_CATALOGUE adds a scene."""
    example = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)[0]
    assert tomllib.loads(example)
    (tmp_path / "mine.toml").write_text(example)
    assert load_catalogue(str(tmp_path / "mine.toml")).effect("hug_pro").images == 2


def test_the_pictures_are_there() -> None:
    """No broken image on the first screen."""
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README):
        assert (Path(__file__).parents[1] / picture).is_file()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(url: str) -> bool:
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        try:
            if httpx.get(url, timeout=5).is_success:
                return True
        except httpx.HTTPError:
            time.sleep(0.2)
    return False

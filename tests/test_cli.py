"""The `effects` command as a person meets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import av
import pytest

from deployments.cli import main

if TYPE_CHECKING:
    from deployments.sandbox.server import Sandbox

CORE = ["hug", "kiss", "heart_gesture", "squish", "expansion"]


def _effects(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deployments.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **variables},
        timeout=110,
    )


def test_help_comes_without_prefect_or_anything_else_heavy() -> None:
    """A cold start loads the standard library alone."""
    heavy = "prefect", "pydantic", "httpx", "fsspec", "rich", "av", "PIL"
    code = (
        "import sys; from deployments.cli import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit: print([name for name in {heavy!r} if name in sys.modules])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert ended.stdout.endswith("[]\n")
    assert "generate" in ended.stdout


def test_the_demo_makes_five_playable_videos_and_a_second_run_reuses_them(prefect_api: str, tmp_path: Path) -> None:
    """The main job from end to end, as its own process; the second run costs nothing."""
    first = _effects("demo", "--json", PREFECT_API_URL=prefect_api)
    assert first.returncode == 0, first.stderr
    document = json.loads(first.stdout)
    assert document["billed"] == 5
    assert [row["effect"] for row in document["rows"]] == CORE
    for row in document["rows"]:
        assert row["state"] == "completed"
        assert Path(row["metadata"]).is_file()
        with av.open(row["video"]) as film:
            stream = film.streams.video[0]
            assert stream.codec_context.name == "h264"
            assert sum(1 for _ in film.decode(stream)) / float(stream.average_rate or 0) == pytest.approx(5, abs=0.2)
            assert bool(film.streams.audio) == (row["effect"] in {"squish", "expansion"})
    assert str(tmp_path) in document["rows"][0]["video"]

    second = _effects("demo", PREFECT_API_URL=prefect_api)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("reused") == 5
    assert "0 paid submissions" in second.stdout
    for effect in CORE:
        assert f"demo-videos/{effect}/" in second.stdout


def test_without_a_configured_server_a_temporary_one_is_started_and_stopped(sandbox: Sandbox, tmp_path: Path) -> None:
    """The command works on a machine on which nothing runs, and leaves nothing running."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    photo = Path(__file__).parents[1] / "deployments" / "photos" / "chelsea.jpg"
    ended = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "generate", "squish", str(photo), "--json"],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[1]), "PREFECT_HOME": str(tmp_path / "prefect")},
        timeout=110,
    )
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["state"] == "completed"
    assert sandbox.counters.billed == 1
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _readable(path)]
    assert not [command for command in commands if str(tmp_path).encode() in command]


def test_a_prefect_server_that_does_not_answer_is_told_in_one_line(sandbox: Sandbox) -> None:
    """Nothing is sent when nobody could see it."""
    photo = Path(__file__).parents[1] / "deployments" / "photos" / "chelsea.jpg"
    ended = _effects("generate", "squish", str(photo), PREFECT_API_URL="http://127.0.0.1:9/api")
    assert ended.returncode == 1
    assert "does not answer" in ended.stderr + ended.stdout
    assert "Traceback" not in ended.stderr
    assert sandbox.counters.submissions == 0


def test_the_catalogue_is_listed_with_prices(capsys: pytest.CaptureFixture[str]) -> None:
    """All 80 scenes, the core ones first; no key is needed to look."""
    assert main(["effects", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert len(document["effects"]) == 80
    assert main(["effects"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("hug")
    assert "0.52 / 1.03" in lines[1]


def test_the_doctor_finds_everything_well(
    sandbox: Sandbox, s3: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Key, balance, model, target and delivery, a line each."""
    assert sandbox.url
    monkeypatch.setenv("EFFECTS_TARGET", f"{s3}/videos")
    monkeypatch.setenv("EFFECTS_STAGING", f"{s3}/staging")
    monkeypatch.setenv("EFFECTS_DELIVERY", "auto")
    assert main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)
    assert [finding["subject"] for finding in findings] == ["account", "model", "target", "delivery"]
    assert {finding["verdict"] for finding in findings} == {"ok"}


@pytest.mark.parametrize(
    ("variable", "value", "subject"),
    [
        ("EFFECTS_API_KEY", " ", "key"),
        ("EFFECTS_API_URL", "http://127.0.0.1:9", "account"),
        ("EFFECTS_TARGET", "blocked/videos", "target"),
    ],
)
def test_the_doctor_says_what_is_wrong_and_what_to_do(
    variable: str,
    value: str,
    subject: str,
    sandbox: Sandbox,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 1, and advice beside the finding."""
    assert sandbox.url
    Path("blocked").write_text("")
    monkeypatch.setenv(variable, value)
    assert main(["doctor", "--json"]) == 1
    findings = {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert findings[subject]["verdict"] == "failed"
    assert findings[subject]["advice"]


def test_the_doctor_tells_of_a_withdrawn_model_and_of_an_empty_account(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first job fails."""
    model = "klingai/kling-video-v1.6-pro-effects"
    sandbox.knobs.deprecations = [{"id": model, "aliases": [], "status": "withdrawn", "replaced_by": "klingai/next"}]
    sandbox.knobs.balance_usd = 0.1
    assert main(["doctor"]) == 1
    told = capsys.readouterr().out
    assert "EFFECTS_MODEL=klingai/next" in told.replace("\n", " ")
    assert "top up" in told


def _readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True

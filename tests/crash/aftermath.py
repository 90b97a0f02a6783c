"""What is left after a crash: how the ledger has the job, what resuming makes of it, which videos are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.cli import main
from tasks.jobs import Outcome, Summary
from tests.conftest import COLLINS, HOPPER
from tests.crash.conftest import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

    from tests.crash.children import Child, Start

TARGET = Path("videos")
TO_THE_END = "to the end"


def generate(start: Start, prefect_api: str, stage: str = TO_THE_END, **variables: str) -> Child:
    """A process that makes one video, or stops at a stage."""
    return start("tests.crash.child", stage, "hug", COLLINS, HOPPER, PREFECT_API_URL=prefect_api, **variables)


def left_as(capsys: pytest.CaptureFixture[str]) -> str:
    """The state of the one job, as `effects status` has it."""
    assert main(["status", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 1
    return str(rows[0]["state"])


def resume(capsys: pytest.CaptureFixture[str], *options: str) -> Outcome:
    """What `effects resume` makes of the one job."""
    main(["resume", "--json", *options])
    summary = Summary.model_validate_json(capsys.readouterr().out)
    assert len(summary.rows) == 1
    return summary.rows[0]


def videos(target: Path = TARGET) -> list[Path]:
    """The videos in the target that are not empty."""
    return [path for path in target.rglob("video.mp4") if path.stat().st_size > 0]


def show_table(request: pytest.FixtureRequest, rows: Iterable[tuple[str, ...]]) -> None:
    """Have a table shown at the end of the run; the first column is wide."""
    lines = [f"{first:<46}" + "".join(f"{cell:<12}" for cell in rest) for first, *rest in rows]
    request.config.stash.setdefault(TABLES, []).append("\n".join(line.rstrip() for line in lines))

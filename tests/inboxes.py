"""An inbox of a test: uploads into it, sweeps over it, and what came of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.inbox import process_inbox
from flows.outcomes import carried
from tasks.jobs import BatchSummary
from tasks.storage import filesystem_of
from tests.conftest import CHELSEA, COLLINS, HOPPER

if TYPE_CHECKING:
    import pytest
    from prefect.client.schemas.objects import State

LONG_AGO = 1_700_000_000.0


class Uploads:
    """What people and programs do with an inbox.

    Args:
        store: any fsspec URL; the inbox is `in` below it, the target `out`.
    """

    def __init__(self, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inbox, self.target = f"{store}/in", f"{store}/out"
        monkeypatch.setenv("EFFECTS_INBOX", self.inbox)
        monkeypatch.setenv("EFFECTS_TARGET", self.target)
        if "://" not in store:
            Path(self.inbox).mkdir(parents=True)

    def put(self, path: str, content: str | bytes = CHELSEA, at: float = LONG_AGO) -> None:
        """Upload a photo, by its path, or bytes; on a disk, as if it had been written at that time."""
        filesystem, to = filesystem_of(f"{self.inbox}/{path}")
        filesystem.makedirs(to.rpartition("/")[0], exist_ok=True)
        filesystem.pipe_file(to, Path(content).read_bytes() if isinstance(content, str) else content)
        if "://" not in self.inbox:
            os.utime(to, (at, at))

    def pair(self, path: str) -> None:
        """Upload two people."""
        self.put(f"{path}/1.jpg", COLLINS)
        self.put(f"{path}/2.jpg", HOPPER)

    def receipts(self) -> dict[str, dict[str, Any]]:
        """What is noted, by upload."""
        filesystem, at = filesystem_of(f"{self.target}/_inbox", use_listings_cache=False)
        read = [json.loads(filesystem.cat_file(path)) for path in filesystem.find(at)]
        return {receipt["name"]: receipt for receipt in read}

    def forget(self) -> None:
        """Remove every receipt, as a crash before they were written would."""
        filesystem, at = filesystem_of(f"{self.target}/_inbox", use_listings_cache=False)
        filesystem.rm(at, recursive=True)

    def videos(self) -> int:
        """How many finished jobs the target holds."""
        filesystem, at = filesystem_of(self.target, use_listings_cache=False)
        return sum(path.endswith("/metadata.json") for path in filesystem.find(at))


async def sweep_state(**parameters: object) -> State[BatchSummary]:
    """One run of the flow."""
    run: Any = process_inbox
    state: State[BatchSummary] = await run(**parameters, return_state=True)
    return state


async def sweep(**parameters: object) -> BatchSummary:
    """What became of everything in one run."""
    summary = carried(await sweep_state(**parameters), BatchSummary)
    assert sum(summary.counts.values()) == len(summary.rows)
    assert [row.row for row in summary.rows] == list(range(1, len(summary.rows) + 1))
    return summary


def states(summary: BatchSummary) -> dict[str, str]:
    """State by name; no name twice."""
    assert len({row.name for row in summary.rows}) == len(summary.rows)
    return {row.name: row.state for row in summary.rows}


def reason(summary: BatchSummary, name: str) -> str:
    """Why an upload ended as it did."""
    return next(str(row.reason) for row in summary.rows if row.name == name)

"""Two processes are given the same job at the same instant, time and again: one of them pays, both have the video."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.conftest import COLLINS, HOPPER
from tests.crash.children import children

if TYPE_CHECKING:
    from collections.abc import Callable

    from deployments.sandbox.server import Sandbox

ROUNDS = 50
HEAD_START_S = 0.02
"""From telling them the moment to the moment itself: both are awake by then."""


@pytest.mark.parametrize("where", ["file", "s3"])
def test_the_same_job_at_the_same_instant_is_paid_once(
    where: str,
    sandbox: Sandbox,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    show: Callable[[str], None],
) -> None:
    """Fifty times on a disk, fifty times on S3, with two real processes that race for each claim."""
    target = f"{request.getfixturevalue('s3')}/videos" if where == "s3" else "videos"
    monkeypatch.setenv("EFFECTS_TARGET", target)
    sandbox.knobs.fetch_images = False
    wins = [0, 0]
    with children() as start:
        racers = [start("tests.crash.racer", COLLINS, HOPPER) for _ in wins]
        assert [racer.line() for racer in racers] == ["READY", "READY"]
        for take in range(ROUNDS):
            moment = time.time() + HEAD_START_S
            for racer in racers:
                racer.say(f"{take} {moment}")
            ids, sent = zip(*(racer.line().split() for racer in racers), strict=True)
            assert len(set(ids)) == 1
            assert sorted(sent) == ["0", "1"]
            wins[sent.index("1")] += 1
    assert sandbox.counters.submissions == ROUNDS
    assert set(sandbox.counters.billed_by_client_request_id.values()) == {1}
    assert len(sandbox.counters.billed_by_client_request_id) == ROUNDS
    show(f"{where}: {ROUNDS} races of 2 processes, {sandbox.counters.billed} paid; won {wins[0]} to {wins[1]}")

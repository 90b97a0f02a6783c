"""From an upload to a video, with nobody touching anything: by events, and by the sweep where there are none."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import fsspec
import pytest
from PIL import Image

from tests.local_stack import LEFT, RIGHT, LocalStack, eventually, local_stack
from tests.uploads.buckets import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BURST = 500
"""Uploads at once."""


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[LocalStack]:
    """A stack of its own, not yet started."""
    with local_stack(tmp_path / "up") as stack:
        yield stack


def _submissions(stack: LocalStack) -> list[int]:
    """How often each attempt was billed."""
    return list(stack.counters()["billed_by_client_request_id"].values())


@pytest.mark.timeout(240)
def test_a_pair_in_a_bucket_becomes_a_video_however_often_it_is_told_of(
    stack: LocalStack, s3: str, s3_endpoint: str
) -> None:
    """S3, queue, listener, event, run, video; told five times, and again after a restart: one submission."""
    store = Store(s3.removeprefix("s3://"), s3_endpoint)
    target = f"{s3}/videos"
    stack.environment |= {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "FSSPEC_"))}
    stack.environment |= {"EFFECTS_INBOX": store.inbox, "EFFECTS_TARGET": target, "EFFECTS_UPLOADS_QUEUE": store.queue}
    stack.start()
    stack.turn(generate_seconds=1)
    stack.rest()
    store.put("in/hug/anna-and-ben/1.jpg", LEFT.read_bytes())
    store.put("in/hug/anna-and-ben/2.jpg", RIGHT.read_bytes())
    bucket = fsspec.filesystem("s3", use_listings_cache=False)
    eventually(lambda: len(bucket.glob(f"{target}/hug/*/metadata.json")) == 1, stack)
    [video] = bucket.glob(f"{target}/hug/*/video.mp4")
    assert bucket.size(video) > 10_000
    by_event = [run for run in stack.runs() if run["created_by"] and run["created_by"]["type"] == "AUTOMATION"]
    assert by_event
    eventually(lambda: store.left == 0, stack)

    told = store.told()
    assert len(told) == 2
    for message in told * 4:
        store.send(message)
    eventually(lambda: store.left == 0, stack)
    assert stack.stop() == 0
    store.hang_up()
    for message in told:
        store.send(message)
    stack.start()
    stack.rest()
    eventually(lambda: store.left == 0, stack)
    eventually(lambda: all(run["state_type"] == "COMPLETED" for run in stack.runs()), stack)
    assert _submissions(stack) == [1]
    assert stack.counters()["submissions"] == 0  # since the restart


@pytest.mark.timeout(300)
def test_a_burst_is_done_by_few_runs(stack: LocalStack) -> None:
    """Hundreds of uploads at once: a video and one submission each, and far fewer runs than uploads."""
    stack.start()
    stack.turn(generate_seconds=1, render=False, balance_usd=10_000)
    stack.rest()
    before = len(stack.runs())
    for number in range(BURST):
        picture = io.BytesIO()
        Image.new("RGB", (320, 320), "teal").save(picture, "JPEG", comment=f"cat {number}")  # no two are the same
        (stack.inbox / "squish" / f"cat {number}.jpg").write_bytes(picture.getvalue())
    eventually(lambda: len(stack.videos()) == BURST, stack, timeout_s=240)
    assert _submissions(stack) == [1] * BURST
    runs = [run for run in stack.runs() if run["name"].startswith("inbox")]
    assert len(runs) - before <= BURST / 10


@pytest.mark.timeout(180)
def test_what_nobody_told_of_is_found_by_the_sweep(stack: LocalStack) -> None:
    """Photos that came while nothing listened are not lost: the next look at the inbox finds them."""
    stack.start()
    assert stack.stop() == 0
    stack.drop("while-away")
    stack.start()
    eventually(lambda: len(stack.videos()) == 1, stack)
    eventually(lambda: any("1 completed" in (run["state"]["message"] or "") for run in stack.runs()), stack)
    assert {run["name"] for run in stack.runs() if run["name"].startswith("inbox")} == {"inbox · all of it"}
    assert _submissions(stack) == [1]

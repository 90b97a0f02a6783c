"""The SQS queue, with a bucket that sends its notifications there."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from deployments.uploads import listener as listener_module
from deployments.uploads import sqs as sqs_module
from deployments.uploads.sqs import Queue
from tasks.errors import BadInput
from tests.uploads import samples
from tests.uploads.buckets import Store
from tests.uploads.desk import Server, listening, until


@pytest.fixture
def store(s3: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of its own for each test; polls are short, as the stand-in goes on with them after we hung up."""
    monkeypatch.setattr(sqs_module, "POLL_S", 1)
    monkeypatch.setattr(listener_module, "FIRST_PAUSE_S", 0.05)
    return Store(s3.removeprefix("s3://"), s3_endpoint)


async def test_photos_in_a_bucket_become_an_event_and_their_messages_are_deleted(store: Store) -> None:
    """With names that are encoded on their way, and other objects that are nobody's photo."""
    server = Server()
    async with listening(store.inbox, server, Queue(store.queue), quiet_s=0.5) as listener:
        for key in ("in/hug/Zoë & Jürgen+1/left.jpg", "in/hug/Zoë & Jürgen+1/right.jpg", "videos/1.mp4"):
            await asyncio.to_thread(store.put, key)
        await until(lambda: store.left == 0 and bool(server.events))
        assert listener.counters.malformed == 0
    assert server.folders == ["hug/Zoë & Jürgen+1"]


async def test_every_shape_that_a_queue_can_hold(store: Store) -> None:
    """Directly, by way of a topic, and of EventBridge; what is no upload is deleted too."""
    server = Server()
    messages: list[Any] = [samples.s3(samples.s3_record("in/squish/1.jpg")), samples.bridge("in/squish/2.jpg")]
    messages += [samples.topic(samples.s3(samples.s3_record("in/squish/3.jpg"))), samples.s3_test()]
    for message in messages:
        store.send(message)
    async with listening("s3://photos/in", server, Queue(store.queue)):
        await until(lambda: store.left == 0)
    assert sorted(server.folders) == ["squish/1.jpg", "squish/2.jpg", "squish/3.jpg"]


async def test_a_message_stays_in_the_queue_until_its_event_was_accepted(store: Store) -> None:
    """Prefect is away; nothing more is taken meanwhile; when it is back, all of it becomes events, and is deleted."""
    server = Server()
    server.away = True
    store.put("in/squish/1.jpg")
    async with listening(store.inbox, server, Queue(store.queue, held_s=1)) as listener:
        await until(lambda: len(server.tries) >= 3)
        await asyncio.to_thread(store.put, "in/squish/2.jpg")
        await until(lambda: len(server.tries) >= 6)
        assert store.left == 2
        assert listener.counters.arrivals <= 2
        server.away = False
        await until(lambda: store.left == 0)
    assert sorted(server.folders) == ["squish/1.jpg", "squish/2.jpg"]


async def test_what_a_listener_took_and_did_not_tell_comes_to_the_next_one(store: Store) -> None:
    """The first one dies with the message in its hands."""
    server = Server()
    store.put("in/squish/1.jpg")
    async with listening(store.inbox, server, Queue(store.queue, held_s=2), quiet_s=60, longest_s=60) as listener:
        await until(lambda: listener.pending == 1)
    assert (server.events, store.left) == ([], 1)
    async with listening(store.inbox, server, Queue(store.queue)):
        await until(lambda: store.left == 0)
    assert server.folders == ["squish/1.jpg"]


async def test_the_same_notification_five_times_is_one_event(store: Store) -> None:
    """SQS promises to deliver at least once; every copy is deleted."""
    server = Server()
    for _ in range(5):
        store.send(samples.s3())
    async with listening("s3://photos/in", server, Queue(store.queue)):
        await until(lambda: store.left == 0)
    assert server.folders == ["hug/anna and ben"]


async def test_what_nobody_can_read_is_told_once_and_left_to_the_queue_s_own_policy(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be somebody else's; it stops nothing."""
    server = Server()
    store.send("hello")
    store.send({"order": 7})
    async with listening("s3://photos/in", server, Queue(store.queue, held_s=1)) as listener:
        await until(lambda: listener.counters.malformed == 2)
        await asyncio.sleep(2.5)  # they come again
        store.send(samples.s3())
        await until(lambda: bool(server.events) and store.left == 2)
        assert listener.counters.malformed == 2
    assert len([record for record in caplog.records if "malformed" in record.getMessage()]) == 2


async def test_a_burst_of_five_hundred_is_a_few_events(store: Store) -> None:
    """Every message is deleted, ten at a time."""
    server = Server()
    for first in range(0, 500, 10):
        records = [samples.s3_record(f"in/squish/{number}.jpg") for number in range(first, first + 10)]
        store.send(samples.s3(*records))
    async with listening("s3://photos/in", server, Queue(store.queue), quiet_s=0.5):
        await until(lambda: store.left == 0)
    assert len(server.folders) == 500
    assert len(server.events) <= 15


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "{}-gone"),
        ({}, "no address"),
        ({"AWS_ENDPOINT_URL": "no address"}, "{}"),
        ({"AWS_DEFAULT_REGION": None}, "https://queue.example/1/uploads"),
        (
            {
                "AWS_ACCESS_KEY_ID": None,
                "AWS_SECRET_ACCESS_KEY": None,
                "AWS_EC2_METADATA_DISABLED": "true",
                "AWS_SHARED_CREDENTIALS_FILE": "none",
                "AWS_CONFIG_FILE": "none",
            },
            "{}",
        ),
    ],
    ids=["no queue", "no address", "no endpoint", "no region", "no credentials"],
)
async def test_a_queue_that_cannot_be_read_is_told_in_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str | None], url: str
) -> None:
    """At the start, when waiting would not mend it."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    async with listening("s3://photos/in", Server()) as listener:
        with pytest.RaisesGroup(BadInput, allow_unwrapped=True, flatten_subgroups=True) as refused:
            await asyncio.wait_for(Queue(url.format(store.queue)).listen(listener), 30)
    assert "cannot be read" in str(getattr(refused.value, "exceptions", [refused.value])[0])


async def test_a_queue_that_is_away_is_asked_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody listens where it should be: no reason to end, it is said, and tried again."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with caplog.at_level(logging.WARNING, "effects"):
        async with listening("s3://photos/in", Server(), Queue(store.queue)):
            await until(lambda: bool(caplog.records))
    assert "tried again" in caplog.records[0].getMessage()

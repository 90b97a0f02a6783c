"""The listener: what it tells Prefect of, when it says so, and what it does while nobody accepts its events."""

from __future__ import annotations

import asyncio
import logging

import pytest

from deployments.uploads import listener as listener_module
from deployments.uploads.arrival import Arrival
from deployments.uploads.events import NotAccepted
from tests.uploads.desk import Server, listening, until

INBOX = "s3://photos/in"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "FIRST_PAUSE_S", 0.05)
    monkeypatch.setattr(listener_module, "LONGEST_PAUSE_S", 0.1)


def arrival(key: str, version: str = "1", bucket: str = "photos") -> Arrival:
    return Arrival("s3", bucket, f"in/{key}", version)


async def test_two_photos_of_one_hug_are_one_event_about_their_folder() -> None:
    """Its resource is the folder, and whoever told of a photo knows when the event was accepted."""
    server = Server()
    async with listening(INBOX, server) as listener:
        await asyncio.gather(*(listener.tell([arrival(f"hug/anna/{name}.jpg")]) for name in "12"))
        assert len(server.events) == 1
    [event] = server.events
    assert event["event"] == "effects.upload"
    assert event["resource"] == {
        "prefect.resource.id": "effects.inbox.s3://photos/in/hug/anna",
        "prefect.resource.name": "hug/anna",
    }
    assert [(other["prefect.resource.role"], other["prefect.resource.id"]) for other in event["related"]] == [
        ("inbox", "effects.inbox.s3://photos/in")
    ]
    assert event["payload"] == {"inbox": INBOX, "folders": ["hug/anna"], "files": 2, "sources": ["s3"]}


async def test_an_event_of_several_folders_is_about_the_inbox_and_names_each() -> None:
    """It would be a lie to call one of them its resource."""
    server = Server()
    async with listening(INBOX, server) as listener:
        await listener.tell([arrival("squish/cat.jpg"), arrival("hug/anna/1.jpg")])
    [event] = server.events
    assert event["resource"]["prefect.resource.id"] == "effects.inbox.s3://photos/in"
    assert [(other["prefect.resource.role"], other["prefect.resource.name"]) for other in event["related"]] == [
        ("folder", "hug/anna"),
        ("folder", "squish/cat.jpg"),
    ]
    assert event["payload"]["folders"] == ["hug/anna", "squish/cat.jpg"]


async def test_the_same_notification_five_times_is_one_event() -> None:
    """While it waits, and after it was told: a repeat is answered at once, and wakes nobody."""
    server = Server()
    async with listening(INBOX, server) as listener:
        await asyncio.gather(*(listener.tell([arrival("squish/cat.jpg")]) for _ in range(3)))
        for _ in range(2):
            await listener.tell([arrival("squish/cat.jpg")])
        assert (listener.counters.arrivals, listener.counters.repeated) == (1, 4)
        await listener.tell([arrival("squish/cat.jpg", version="2")])
    assert [event["payload"]["folders"] for event in server.events] == [["squish/cat.jpg"]] * 2
    assert server.events[0]["id"] != server.events[1]["id"]


async def test_a_repeat_after_a_restart_is_the_same_event() -> None:
    """Then Prefect knows it again, if it was not long ago."""
    server = Server()
    for _ in range(2):
        async with listening(INBOX, server) as listener:
            await listener.tell([arrival("squish/cat.jpg")])
    assert server.events[0]["id"] == server.events[1]["id"]


async def test_a_burst_of_a_thousand_is_a_few_events() -> None:
    """Told one by one, by a thousand senders."""
    server = Server()
    async with listening(INBOX, server, quiet_s=0.3) as listener:
        await asyncio.gather(*(listener.tell([arrival(f"squish/{number}.jpg")]) for number in range(1000)))
    assert len(server.events) <= 20
    assert sorted(server.folders) == sorted(f"squish/{number}.jpg" for number in range(1000))
    assert all(len(event["related"]) <= 100 for event in server.events)


async def test_a_steady_stream_is_told_of_meanwhile() -> None:
    """A window that never came to rest would never close."""
    server = Server()
    async with listening(INBOX, server, quiet_s=0.5, longest_s=0.6) as listener, asyncio.TaskGroup() as senders:
        for number in range(20):
            senders.create_task(listener.tell([arrival(f"squish/{number}.jpg")]))
            await asyncio.sleep(0.1)
        assert server.events


async def test_what_concerns_no_upload_is_answered_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """Other buckets, hidden files: counted, and nobody is woken; of another bucket it is said, once."""
    server = Server()
    async with listening(INBOX, server, quiet_s=60, longest_s=60) as listener:
        for name in "12":
            await listener.tell([arrival(f"hug/anna/{name}.jpg", bucket="other"), arrival("hug/anna/.DS_Store")])
        assert (listener.counters.ignored, listener.counters.arrivals, listener.pending) == (4, 0, 0)
    [record] = caplog.records
    assert record.getMessage() == f"uploads: what arrives in 'other' is passed over: the inbox is {INBOX}"


async def test_while_nobody_accepts_them_arrivals_are_kept_and_told_later(caplog: pytest.LogCaptureFixture) -> None:
    """Who told of them hears at once that it was in vain; later there is one event all the same, with the same id."""
    server = Server()
    server.away = True
    with caplog.at_level(logging.INFO, "effects"):
        async with listening(INBOX, server) as listener:
            with pytest.raises(NotAccepted, match="does not answer"):
                await listener.tell([arrival("hug/anna/1.jpg")])
            assert not listener.answering
            with pytest.raises(NotAccepted):
                await listener.tell([arrival("hug/anna/1.jpg"), arrival("squish/cat.jpg")])
            assert listener.pending == 2
            await until(lambda: len(server.tries) >= 4)
            server.away = False
            await listener.answers()
            await listener.tell([arrival("hug/anna/1.jpg"), arrival("squish/cat.jpg")])
            assert (listener.pending, listener.counters.events) == (0, 2)
    assert server.folders == ["hug/anna", "squish/cat.jpg"]
    assert server.tries[0] == server.events[0]["id"]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO", "INFO"]


async def test_an_event_that_does_not_fit_does_not_hold_up_the_others() -> None:
    """It is given up; who told of it hears so, and the rest is accepted."""
    server = Server()
    server.refuses = {"hug/0150"}
    async with listening(INBOX, server) as listener:
        telling = [listener.tell([arrival(f"hug/{number:04}/1.jpg")]) for number in range(300)]
        heard = await asyncio.gather(*telling, return_exceptions=True)
        assert listener.answering
        assert listener.pending == 0
        await listener.tell([arrival("squish/cat.jpg")])
    refused = {number for number, answer in enumerate(heard) if isinstance(answer, NotAccepted)}
    assert refused == set(range(100, 200))
    assert len(server.events) == 3


async def test_memory_is_bounded_while_nobody_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond that the queue keeps its messages, senders come again, and the sweep finds the rest."""
    monkeypatch.setattr(listener_module, "MOST_PENDING", 10)
    server = Server()
    server.away = True
    async with listening(INBOX, server) as listener:
        with pytest.raises(NotAccepted, match="no room"):
            await listener.tell([arrival(f"squish/{number}.jpg") for number in range(11)])
        assert listener.pending == 10


async def test_what_was_told_is_forgotten_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener runs for months."""
    monkeypatch.setattr(listener_module, "MOST_REMEMBERED", 2)
    server = Server()
    async with listening(INBOX, server) as listener:
        for number in (1, 2, 3, 3, 1):
            await listener.tell([arrival(f"squish/{number}.jpg")])
        assert listener.counters.repeated == 1
    assert server.folders == [f"squish/{number}.jpg" for number in (1, 2, 3, 1)]


async def test_who_waits_when_it_is_stopped_hears_that_it_was_in_vain() -> None:
    """Then a sender sends again, and a queue keeps its message."""
    async with listening(INBOX, Server(), quiet_s=60, longest_s=60) as listener:
        telling = asyncio.create_task(listener.tell([arrival("squish/cat.jpg")]))
        await until(lambda: listener.pending == 1)
    with pytest.raises(NotAccepted, match="stopped"):
        await telling


async def test_a_sender_that_goes_away_takes_nobody_s_answer_along() -> None:
    """Two tell of the same photo; one hangs up."""
    server = Server()
    async with listening(INBOX, server, quiet_s=0.3) as listener:
        one, other = (asyncio.create_task(listener.tell([arrival("squish/cat.jpg")])) for _ in range(2))
        await until(lambda: listener.counters.repeated == 1)
        one.cancel()
        await other
    assert len(server.events) == 1


def test_what_is_malformed_is_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """In one line, with where it came from."""

    async def read() -> int:
        async with listening(INBOX, Server()) as listener:
            listener.read(b"{", "the queue, message 7")
            listener.read(b'{"Event": "s3:TestEvent"}', "the queue, message 8")
            assert listener.counters.ignored == 1
            return listener.counters.malformed

    assert asyncio.run(read()) == 1
    [record] = caplog.records
    assert record.getMessage().startswith("uploads: a malformed notification from the queue, message 7: ")

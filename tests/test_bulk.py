"""What Prefect's server is told goes there in bulk, whole and in order."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from prefect._internal.concurrency.services import QueueService
from prefect._internal.concurrency.threads import WorkerThread
from prefect.events.clients import NullEventsClient
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker

import tasks.visibility  # noqa: F401 - from then on
from tasks.bulk import GATHER_S, _Gathering

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECES = 500


class Teller(QueueService[int]):
    """Tells of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[int] = []

    def send(self, item: int) -> None:
        """To be told of."""
        self._queue.put_nowait(item)

    async def _handle(self, item: int) -> None:
        self.told.append(item)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When a thread was asked to wait for a piece."""
    times, submit = [], WorkerThread.submit

    def asking(thread: WorkerThread, call: Any) -> object:  # noqa: ANN401
        times.append(time.monotonic())
        return submit(thread, call)

    monkeypatch.setattr(WorkerThread, "submit", asking)
    return times


@pytest.fixture
def teller(asked: list[float]) -> Iterator[Teller]:
    teller = Teller.instance()
    for _ in range(1000):
        if asked:
            break
        time.sleep(0.01)
    yield teller
    teller.drain()


def test_what_gathers_is_told_without_a_change_of_threads_for_each(teller: Teller, asked: list[float]) -> None:
    for number in range(PIECES):
        teller.send(number)
    teller.wait_until_empty()
    assert teller.told == list(range(PIECES))
    assert 1 <= len(asked) <= PIECES / 50


def test_what_comes_last_is_told_before_the_end(teller: Teller) -> None:
    teller.send(1)
    time.sleep(GATHER_S / 2)
    teller.send(2)
    teller.drain()
    assert teller.told == [1, 2]


def test_who_waits_for_nothing_does_not_keep_the_end_waiting(teller: Teller) -> None:
    ending = threading.Thread(target=teller.drain, daemon=True)
    ending.start()
    ending.join(30)
    assert not ending.is_alive()


def test_events_and_log_lines_go_that_way() -> None:
    for service in (EventsWorker(NullEventsClient, ()), APILogWorker()):  # type: ignore[arg-type]
        assert type(service._queue_get_thread) is _Gathering

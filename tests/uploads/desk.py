"""A listener whose events go to the test, and what tests ask of one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from deployments.uploads.events import NotAccepted
from deployments.uploads.listener import Listener, Source
from deployments.uploads.place import Place
from deployments.uploads.window import Window

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from deployments.uploads.events import Event

PATIENCE_S = 30.0


class Server:
    """Stands in for Prefect's: it keeps what it accepted, and can be away, or refuse some folders' events for good.

    Attributes:
        events: accepted.
        tries: the ids of all events that it was sent, in order.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.tries: list[str] = []
        self.away = False
        self.refuses: set[str] = set()

    async def send(self, events: Sequence[Event]) -> None:
        """As `events.send`."""
        self.tries += [event["id"] for event in events]
        if self.away:
            raise NotAccepted("the Prefect server does not answer: refused")
        if any(self.refuses & set(event["payload"]["folders"]) for event in events):
            raise NotAccepted("the Prefect server answers HTTP 422", lasting=True)
        self.events += events

    @property
    def folders(self) -> list[str]:
        """Of all events."""
        return [folder for event in self.events for folder in event["payload"]["folders"]]


@asynccontextmanager
async def listening(
    inbox: str, server: Server, *sources: Source, quiet_s: float = 0.1, longest_s: float = 5.0
) -> AsyncIterator[Listener]:
    """A listener that runs, and its sources."""
    listener = Listener(Place.of(inbox), Window(quiet_s, longest_s), send=server.send)
    tasks = [asyncio.create_task(listener.run())]
    tasks += [asyncio.create_task(source.listen(listener)) for source in sources]
    try:
        yield listener
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what must come true."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - what it waits for is no event
            await asyncio.sleep(0.02)

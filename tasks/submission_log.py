"""The provider's log of submissions: where the id of a paid submission is found when its answer was lost.

Many look-ups at once share one reading of the log, and readings keep within what the provider allows: 200 requests
a minute. A row that was seen once is remembered; a row that is missing proves nothing.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tasks.answers import LogRow

    ReadPage = Callable[[str, int, int], Awaitable[list[tuple[str | None, LogRow]]]]

PERIODS = ((3_600, "1h"), (86_400, "24h"), (7 * 86_400, "7d"), (30 * 86_400, "30d"))
"""Seconds, and the provider's word. `1h` is documented; the longer ones are an inference from it."""

PAGE_ROWS = 100
MOST_PAGES = 100
REQUEST_PAUSE_S = 60.0 / 180
"""Between two requests: a little slower than the 200 a minute that are allowed."""


class SubmissionLog:
    """Rows by client request id, read when somebody asks.

    Args:
        read_page: `(period, limit, offset)` to rows with their client request ids, newest first.
    """

    def __init__(self, read_page: ReadPage) -> None:
        self._read_page = read_page
        self._rows: dict[str, LogRow] = {}
        self._reading = asyncio.Lock()
        self._readings = 0
        self._next_request = 0.0

    async def find(self, client_request_id: str, *, age_s: float) -> LogRow | None:
        """The row of a submission; None does not prove that it was not accepted.

        Args:
            client_request_id: as it was sent.
            age_s: how long ago it was sent at most, seconds; picks the period that is read.

        Raises:
            ProviderBusy: the log could not be read to its end.
        """
        readings = self._readings
        async with self._reading:
            # A reading that began after we asked has our answer; one that was under way may have begun too early.
            if client_request_id not in self._rows and self._readings < readings + 2:
                await self._read(client_request_id, age_s)
        return self._rows.get(client_request_id)

    async def _read(self, wanted: str, age_s: float) -> None:
        period = next((word for length, word in PERIODS if age_s < length * 0.9), PERIODS[-1][1])
        for page in range(MOST_PAGES):
            await self._pause()
            rows = await self._read_page(period, PAGE_ROWS, page * PAGE_ROWS)
            self._rows.update({key: row for key, row in rows if key})
            if wanted in self._rows:
                return  # what lies behind was not read: for others this was no reading
            if len(rows) < PAGE_ROWS:
                break
        self._readings += 1

    async def _pause(self) -> None:
        clock = asyncio.get_running_loop().time
        wait = self._next_request - clock()
        self._next_request = max(clock(), self._next_request) + REQUEST_PAUSE_S
        if wait > 0:
            await asyncio.sleep(wait)

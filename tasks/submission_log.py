"""The provider's log of submissions: where the id of a paid submission is found when its answer was lost.

Many look-ups at once share one reading of the log, and readings keep within what the provider allows: 200 requests
a minute. Only a row with an id says anything: an id may have several rows (a refusal that was repeated, then the
acceptance), and neither a missing row nor one without an id proves that nothing was accepted.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

from tasks.errors import ProviderBusy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tasks.answers import LogRow

    ReadPage = Callable[[str, int, int], Awaitable[list[LogRow]]]

PERIODS = ((3_600, "1h"), (86_400, "24h"), (7 * 86_400, "7d"), (30 * 86_400, "30d"))
"""Seconds, and the provider's word. `1h` is documented; the longer ones are an inference from it."""

PAGE_ROWS = 100
MOST_PAGES = 300
REQUEST_PAUSE_S = 60.0 / 180
"""Between two requests: a little slower than the 200 a minute that are allowed."""


class SubmissionLog:
    """Rows by client request id, read when somebody asks.

    Args:
        read_page: `(period, limit, offset)` to rows, newest first.
    """

    def __init__(self, read_page: ReadPage) -> None:
        self._read_page = read_page
        self._found: dict[str, LogRow] = {}
        self._reading = asyncio.Lock()
        self._readings: Counter[int] = Counter()
        self._next_request = 0.0

    async def find(self, client_request_id: str, *, age_s: float | None) -> LogRow | None:
        """The row of an accepted submission; None does not prove that it was not accepted.

        Args:
            client_request_id: as it was sent.
            age_s: how long ago it was sent at most, seconds, None where nobody knows; picks the period that is read.

        Raises:
            ProviderBusy: the log could not be read to its end.
        """
        known = (n for n, (length, _) in enumerate(PERIODS) if age_s is not None and age_s < length * 0.9)
        period = next(known, len(PERIODS) - 1)
        before = self._covering(period)
        async with self._reading:
            # A reading that began after we asked has our answer; one that was under way may have begun too early.
            if client_request_id not in self._found and self._covering(period) < before + 2:
                await self._read(client_request_id, period)
        return self._found.get(client_request_id)

    def _covering(self, period: int) -> int:
        """Whole readings so far of this period or a longer one."""
        return sum(times for read, times in self._readings.items() if read >= period)

    async def _read(self, wanted: str, period: int) -> None:
        for page in range(MOST_PAGES):
            await self._pause()
            rows = await self._read_page(PERIODS[period][1], PAGE_ROWS, page * PAGE_ROWS)
            self._found.update(
                {row.client_request_id: row for row in rows if row.client_request_id and row.generation_id}
            )
            if wanted in self._found:
                return  # what lies behind was not read: for others this was no whole reading
            if len(rows) < PAGE_ROWS:
                self._readings[period] += 1
                return
        raise ProviderBusy(f"the provider's log has more than {MOST_PAGES * PAGE_ROWS} rows in {PERIODS[period][1]}")

    async def _pause(self) -> None:
        clock = asyncio.get_running_loop().time
        wait = self._next_request - clock()
        self._next_request = max(clock(), self._next_request) + REQUEST_PAUSE_S
        if wait > 0:
            await asyncio.sleep(wait)

"""The reckoning: whether the account lost what a run committed, no more and no less."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tasks.budget import Budget

log = logging.getLogger("effects")

TOLERANCE_USD = 0.01


class Reckoning:
    """The account's balance before and after a run, beside what the run committed.

    A courtesy: whatever goes wrong with a look at the balance, it is passed over, and the run goes on.

    Args:
        balance_usd: looks at the account; None where it does not say.
    """

    def __init__(self, balance_usd: Callable[[], Awaitable[float | None]]) -> None:
        self._look = balance_usd
        self._before_usd: float | None = None

    @classmethod
    async def begin(cls, balance_usd: Callable[[], Awaitable[float | None]]) -> Self:
        """Look at the account before anything is paid."""
        reckoning = cls(balance_usd)
        reckoning._before_usd = await reckoning._balance_usd()
        return reckoning

    async def end(self, budget: Budget) -> None:
        """Say so where the balance fell by another sum than was committed, by more than a cent either way.

        Args:
            budget: what the run has paid or may have to pay; holds of failed generations come back at a time of the
                provider's own.
        """
        committed_usd, refunds_usd = budget.committed_usd, budget.refunds_usd
        after_usd = await self._balance_usd()
        if self._before_usd is None or after_usd is None:
            return
        fell_usd = self._before_usd - after_usd
        if committed_usd - refunds_usd - TOLERANCE_USD <= fell_usd <= committed_usd + refunds_usd + TOLERANCE_USD:
            return
        log.warning(
            "the account's balance fell by $%.2f, and this run committed $%.2f: look at the provider's transactions"
            " (whatever else uses the account counts too)",
            fell_usd,
            committed_usd,
        )

    async def _balance_usd(self) -> float | None:
        try:
            return await self._look()
        except Exception:  # noqa: BLE001 - see above
            return None

"""What a run may spend, and what it has committed so far."""

from __future__ import annotations

from tasks.errors import BudgetSpent


class Budget:
    """Money committed by this run, by job and attempt: held before a submission, corrected by the provider's answer.

    An unknown outcome stays held, since it may have been paid for; what was refused, was never sent or has failed
    is let go, since it is not charged.

    Args:
        limit_usd: a hard stop, US$; None for no limit.
    """

    def __init__(self, limit_usd: float | None = None) -> None:
        self.limit_usd = limit_usd
        self._held: dict[tuple[str, int], float] = {}

    @property
    def committed_usd(self) -> float:
        """All that this run has paid or may have to pay, US$."""
        return round(sum(self._held.values()), 6)

    def hold(self, job_id: str, attempt: int, usd: float) -> None:
        """Set money aside before a submission.

        Raises:
            BudgetSpent: where that would go beyond the limit; nothing is held then.
        """
        if self.limit_usd is not None and self.committed_usd + usd > self.limit_usd + 1e-9:
            raise BudgetSpent(
                f"the budget of ${self.limit_usd:.2f} leaves ${self.limit_usd - self.committed_usd:.2f},"
                f" and this would cost ${usd:.2f}",
                job_id=job_id,
            )
        self._held[job_id, attempt] = usd

    def correct(self, job_id: str, attempt: int, usd: float | None) -> None:
        """Put the provider's own figure in place of the expected one, where it gave one."""
        if usd is not None and (job_id, attempt) in self._held:
            self._held[job_id, attempt] = usd

    def let_go(self, job_id: str, attempt: int) -> None:
        """It is not charged."""
        self._held.pop((job_id, attempt), None)

    def spent_on(self, job_id: str) -> float:
        """What this run has committed for one job, US$."""
        return round(sum(usd for (job, _), usd in self._held.items() if job == job_id), 6)

"""What a run may spend, and what it has committed so far."""

from __future__ import annotations

from tasks.errors import BudgetSpent


class Budget:
    """Money committed by this run, by job and attempt: held before a submission, corrected by the provider's answer.

    An unknown outcome stays held, since it may have been paid for; what was refused, was never sent or has failed
    is let go, since it is not charged.

    Args:
        limit_usd: a hard stop, US$; None for no limit.

    Attributes:
        refunds_usd: what the provider held for generations that have failed.
    """

    def __init__(self, limit_usd: float | None = None) -> None:
        self.limit_usd = limit_usd
        self.refunds_usd = 0.0
        self._held: dict[str, dict[int, float]] = {}
        self._committed_usd = 0.0

    @property
    def committed_usd(self) -> float:
        """All that this run has paid or may have to pay, US$."""
        return round(self._committed_usd, 6)

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
        self.let_go(job_id, attempt)
        self._held.setdefault(job_id, {})[attempt] = usd
        self._committed_usd += usd

    def correct(self, job_id: str, attempt: int, usd: float | None) -> None:
        """Put the provider's own figure in place of the expected one, where it gave one."""
        held = self._held.get(job_id, {})
        if usd is not None and attempt in held:
            self._committed_usd += usd - held[attempt]
            held[attempt] = usd

    def let_go(self, job_id: str, attempt: int, *, refund_usd: float = 0.0) -> None:
        """It is not charged.

        Args:
            job_id: of the job.
            attempt: of the job.
            refund_usd: what the provider holds for it, and gives back at a time of its own.
        """
        self.refunds_usd += refund_usd
        self._committed_usd -= self._held.get(job_id, {}).pop(attempt, 0.0)

    def spent_on(self, job_id: str) -> float:
        """What this run has committed for one job, US$."""
        return round(sum(self._held.get(job_id, {}).values()), 6)

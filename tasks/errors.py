"""What can go wrong, one class for each *next move*.

A caller decides by class, never by message: fix the input, wait and resume, top up the account, or reconcile.
Every message is one line that a person can act on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

JobState = Literal["completed", "reused", "rejected", "failed", "unknown", "open", "deferred", "waiting"]
"""Every item that was asked for ends in exactly one of these.

completed: the video is there · reused: it was there already · rejected: fix the input · failed: the provider said
no · unknown: it may have been paid for, and nobody knows its id · open: paid for, not finished yet · deferred:
nothing was sent · waiting: an upload that is not complete yet.
"""


class EffectsError(Exception):
    """One line on what went wrong, and where.

    Attributes:
        reason: the line.
        job_id: the job, once it is known.
        generation_id: the provider's id, once it is known: from here on the job can be resumed.
        attempt: the attempt, counted from 1, once there is one.
        final: whether asking for the same photos and wish again ends the same, whatever else is mended.
    """

    next_move: ClassVar[str] = "look at the reason, then run it again"
    final: bool = False

    def __init__(
        self,
        reason: str,
        *,
        job_id: str | None = None,
        generation_id: str | None = None,
        attempt: int | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.job_id = job_id
        self.generation_id = generation_id
        self.attempt = attempt

    @property
    def state(self) -> JobState:
        """The state that an item ends in because of this error."""
        # Once the provider has given an id, the job is paid for: it can only be finished, never be deferred.
        return "open" if self.generation_id else "deferred"


class BadInput(EffectsError):
    """What was asked for cannot be done; every problem is listed at once, and nothing was sent.

    Attributes:
        problems: a line each, never empty.
        transient: whether asking again in a moment could help (a connection that broke while an image was read).
    """

    next_move = "fix the input"

    def __init__(
        self,
        problems: Sequence[str] | str,
        *,
        transient: bool = False,
        final: bool = False,
        job_id: str | None = None,
    ) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        self.transient = transient
        self.final = final
        super().__init__("; ".join(self.problems), job_id=job_id)

    def __reduce__(self) -> tuple[object, ...]:
        """Rebuild from the problems: the default would hand the joined line to `__init__`."""
        return (type(self), (self.problems,), self.__dict__)

    @property
    def state(self) -> JobState:  # noqa: D102
        return "rejected"


class Rejected(EffectsError):
    """The provider refused the request itself (HTTP 400 and its kin): the same request is refused for ever."""

    next_move = "fix the input; the provider refuses this request as it is"
    final = True

    @property
    def state(self) -> JobState:  # noqa: D102
        return "rejected"


class ProviderBusy(EffectsError):
    """The provider or the way to it is overloaded; nothing was accepted.

    Attributes:
        retry_after: seconds that the provider asked for, or None where it asked for none.
    """

    next_move = "run it again later: nothing was sent"

    def __init__(self, reason: str, *, retry_after: float | None = None, generation_id: str | None = None) -> None:
        super().__init__(reason, generation_id=generation_id)
        self.retry_after = retry_after


class NeverSent(ProviderBusy):
    """The request surely did not reach the provider: connection refused, no such host, no connection in time."""


class AccountTrouble(EffectsError):
    """Nothing can be bought with this account as it is: stop the whole run; what was not sent is deferred."""


class OutOfCredits(AccountTrouble):
    """The account has no money left, or is not verified (HTTP 403)."""

    next_move = "top up or verify the account, then run it again"


class NotAuthorized(AccountTrouble):
    """The key is missing, wrong, or not allowed to do this (HTTP 401, 403)."""

    next_move = "set EFFECTS_API_KEY to a valid key, then run it again"


class ModelWithdrawn(AccountTrouble):
    """The provider no longer serves this model (HTTP 404 on a submission).

    Attributes:
        replaced_by: the model that the provider names in its place, if any.
    """

    next_move = "set EFFECTS_MODEL to a model that is served, then run it again"

    def __init__(self, reason: str, *, replaced_by: str | None = None) -> None:
        super().__init__(reason)
        self.replaced_by = replaced_by


class BudgetSpent(EffectsError):
    """The run's budget does not reach for another submission; nothing was sent."""

    next_move = "raise EFFECTS_BUDGET_USD, or run it again: each run has its own budget"


class SubmitUnknown(EffectsError):
    """A submission left, and no answer came back: it may have been paid for. Reconcile; never send it again.

    Attributes:
        looked_up: whether the provider's log was read to its end, and does not show it.
    """

    looked_up = False
    next_move = "run `effects resume`: it looks the submission up, and never sends it twice by itself"

    @property
    def state(self) -> JobState:  # noqa: D102
        return "unknown"


class GenerationFailed(EffectsError):
    """The provider ended the generation without a video. Failed generations are not charged.

    Attributes:
        kind: the provider's word for it, such as `face_detection_error`, or `unspecified`.
        final: whether another attempt is pointless or not allowed any more.
    """

    next_move = "try other photos, or ask anew with another --take"

    def __init__(
        self,
        reason: str,
        *,
        kind: str = "unspecified",
        final: bool = True,
        job_id: str | None = None,
        generation_id: str | None = None,
        attempt: int | None = None,
    ) -> None:
        super().__init__(reason, job_id=job_id, generation_id=generation_id, attempt=attempt)
        self.kind = kind
        self.final = final

    @property
    def state(self) -> JobState:  # noqa: D102
        return "failed"


class GenerationPending(EffectsError):
    """One look found the generation still under way; look again later. Never reaches a person.

    Attributes:
        look_in_s: seconds until another look is worth it.
    """

    next_move = "wait"

    def __init__(self, reason: str, *, look_in_s: float) -> None:
        super().__init__(reason)
        self.look_in_s = look_in_s


class GenerationTimeout(EffectsError):
    """The wait is over, the generation is not: it stays open, and can be resumed at no further cost."""

    next_move = "run `effects resume` later: the generation goes on at the provider"


class BadResult(EffectsError):
    """What came as the video is none: an HTML page, cut short, of the wrong length. Paid for, so it stays open."""

    next_move = "run `effects resume`: it downloads again, and never pays again"


class StorageError(EffectsError):
    """The target or the staging area could not be read or written.

    Attributes:
        lasting: whether it is the location or its rights that do not fit, rather than a passing trouble.
    """

    next_move = "make the storage work, then run it again"

    def __init__(self, reason: str, *, lasting: bool = False) -> None:
        super().__init__(reason)
        self.lasting = lasting

    @property
    def state(self) -> JobState:  # noqa: D102
        return "rejected" if self.lasting and not self.generation_id else super().state

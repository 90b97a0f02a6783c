"""History: how long earlier generations of one model, effect and duration took; what the looks are planned from.

Pure: text in, text out. It is a cache of what the past taught: losing it costs looks, never a video, so whatever
cannot be read is passed over.
"""

from __future__ import annotations

import hashlib
import math
import re
from bisect import bisect_right
from datetime import datetime  # noqa: TC003 - pydantic looks at annotations
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tasks.durations import Took

KEPT = 500
"""Of the latest: what a batch has under way at once, and some. After fifteen newer ones a wait counts half
(`tasks.durations`)."""

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Waited(BaseModel):
    """One generation, as its looks saw it.

    Attributes:
        generation_id: the provider's; the same wait, told twice, counts once.
        after_s: seconds from the submission to the last look that found it running; 0 where there was none.
        by_s: to the look that found it done, or None where nobody waited for that.
        at: when it was submitted.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    generation_id: str
    after_s: Seconds
    by_s: Seconds | None
    at: datetime

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.at.tzinfo is None:
            raise ValueError("a time without a zone")
        if self.took.by_s < self.after_s:
            raise ValueError("over before it was seen running")
        return self

    @property
    def took(self) -> Took:
        """As a sample."""
        return Took(self.after_s, math.inf if self.by_s is None else self.by_s)

    @property
    def over_at(self) -> float:
        """When it was over, or nobody waited any longer; seconds since 1970."""
        return self.at.timestamp() + (self.after_s if self.by_s is None else self.by_s)


def _readable(rows: object) -> list[Waited]:
    if not isinstance(rows, (list, tuple)):
        return []
    waits = []
    for row in rows:
        try:
            waits.append(Waited.model_validate(row))
        except ValidationError:
            continue
    return waits


class History(BaseModel):
    """The latest waits for one model, effect and duration, oldest first, each generation once.

    Immutable: `merged` gives another. Merging is idempotent and heeds no order, so two writers who
    overwrite each other lose some waits at worst, and none where they merge before they write.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    model: str
    effect: str
    duration: int
    waits: Annotated[tuple[Waited, ...], BeforeValidator(_readable)] = ()

    def model_post_init(self, _context: Any, /) -> None:  # noqa: ANN401 - pydantic's own signature
        """Whoever wrote the waits: in order, each once, the latest only."""
        once: dict[str, Waited] = {}
        for wait in self.waits:
            known = once.get(wait.generation_id)
            once[wait.generation_id] = wait if known is None else min(wait, known, key=_vague)
        latest = sorted(once.values(), key=lambda wait: (wait.at, wait.generation_id))[-KEPT:]
        object.__setattr__(self, "waits", tuple(latest))

    @classmethod
    def read(cls, text: str | bytes, *, model: str, effect: str, duration: int) -> History:
        """What was kept; an empty history where that cannot be read, or is another's."""
        empty = cls(model=model, effect=effect, duration=duration)
        try:
            found = cls.model_validate_json(text)
        except ValidationError:
            return empty
        return found if found.name == empty.name else empty

    @property
    def name(self) -> str:
        """Fit for a file: readable, and different for every model, effect and duration."""
        words = f"{self.model} {self.effect} {self.duration}"
        readable = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:80]
        return f"{readable}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"

    @property
    def samples(self) -> tuple[Took, ...]:
        """As `tasks.looks.plan_looks` takes them.

        A wait grows older by those that were submitted after it was over, not by those beside it: of many that began
        at once, the last to end are the longest, and are no newer than the others.
        """
        submitted = sorted(wait.at.timestamp() for wait in self.waits)
        return tuple(
            wait.took._replace(newer=len(submitted) - bisect_right(submitted, wait.over_at)) for wait in self.waits
        )

    def merged(self, other: History) -> History:
        """What both know.

        Raises:
            ValueError: it is about another model, effect or duration.
        """
        if other.name != self.name:
            raise ValueError(f"{other.name} is not {self.name}")
        return History(**_key(self), waits=(*self.waits, *other.waits))


def _key(history: History) -> dict[str, Any]:
    return history.model_dump(include={"model", "effect", "duration"})


def _vague(wait: Waited) -> tuple[float, float, datetime]:
    """The narrower the better: a generation that was given up and found done later was done later."""
    return wait.took.by_s - wait.after_s, wait.took.by_s, wait.at

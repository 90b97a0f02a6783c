"""Generations and the book of them: what was ordered, when it ends and how, and what was billed for it."""

import heapq
import random
import string
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from deployments.sandbox import models
from deployments.sandbox.answers import iso
from deployments.sandbox.counters import Counters
from deployments.sandbox.knobs import Knobs

Clock = Callable[[], float]
Status = Literal["queued", "generating", "completed", "error"]

_LETTERS = string.ascii_letters + string.digits
_NEVER_S = 1e9  # thirty years


class Order(BaseModel):
    """The valid body of a submission, and who asks."""

    model_config = ConfigDict(frozen=True)

    scene: str
    model: str
    duration: int
    image_urls: tuple[str, ...]
    client_request_id: str | None
    request_id: str


class Generation(BaseModel):
    """One generation: an accepted order. Times are seconds since the epoch.

    Attributes:
        id: opaque; may hold `:` and `/`, or begin with `-`.
        order: what was asked for.
        created: when it was accepted.
        queued_until: when it stops being queued.
        ready_at: when it ends, unless its video takes longer than that to make.
        credit_hold: what it costs if it does not fail, in credits.
        link: its name on the CDN and in the state directory; safe in paths.
        outcome: how it ends; None while that is open.
        decided_at: when that was known.
        error: for outcome `error`: the provider's `error` value, in any JSON shape.
        image_sha256: of the images as they were fetched, in order.
        file: whether its video was rendered into a file.
    """

    id: str
    order: Order
    created: float
    queued_until: float
    ready_at: float
    credit_hold: int
    link: str
    outcome: Literal["video", "error"] | None = None
    decided_at: float | None = None
    error: object = None
    image_sha256: list[str] = []
    file: bool = False

    @property
    def ended_at(self) -> float | None:
        """When it ends; None while that is open."""
        return None if self.decided_at is None else max(self.ready_at, self.decided_at)

    def status(self, now: float) -> Status:
        """The status at a moment."""
        if now < self.queued_until:
            return "queued"
        if self.outcome is None or now < self.ready_at:
            return "generating"
        return "completed" if self.outcome == "video" else "error"

    def row(self, now: float) -> dict[str, object]:
        """Its row in /v2/logs: failed ones cost nothing, running ones show what is held."""
        failed = self.status(now) == "error"
        cost = 0 if failed else self.credit_hold
        return {
            "created": iso(self.created),
            "status": "failed" if failed else "succeeded",
            "origin": "api",
            "model": self.order.model,
            "cost": {"usd": models.usd(cost), "credits": cost},
            "tokens": {"input": 0, "output": 0, "total": 0},
            "request_id": self.order.request_id,
            "inference_id": self.id,
            "client_request_id": self.order.client_request_id,
        }

    def transaction(self, now: float) -> dict[str, object]:
        """Its line in /v2/billing/transactions."""
        states = {"completed": "charged", "error": "released"}
        status = self.status(now)
        return {
            "created": iso(self.created),
            "type": "MODEL_USAGE",
            "status": states.get(status, "held"),
            "amount": 0.0 if status == "error" else -models.usd(self.credit_hold),
            "currency": "USD",
            "reference_id": self.id,
        }


class Book:
    """All generations, and the balance. Plain decisions by an injected clock.

    One thread may change it; others may read.

    With a state directory each generation is a JSON file there, replaced atomically: a book opened on the directory
    of a process that was killed knows the same generations, bills and client request ids.

    Raises:
        OSError: the state directory cannot be read or written.
        pydantic.ValidationError: a file in it is not a generation's.
    """

    def __init__(
        self, knobs: Knobs, counters: Counters, *, clock: Clock, chance: random.Random, state: Path | None
    ) -> None:
        self._knobs, self._counters, self._clock, self._chance = knobs, counters, clock, chance
        # The nth generation takes as long as any other nth of this seed, whatever else was asked meanwhile.
        self._pace = random.Random(chance.getrandbits(64))  # noqa: S311 - simulation
        self._folder = None if state is None else state / "generations"
        self._by_id: dict[str, Generation] = {}
        self._by_link: dict[str, Generation] = {}
        self._newest_first: deque[Generation] = deque()
        self._spent = 0
        self._open: list[float] = []  # heap: when each running generation is to end
        self._refunds: list[tuple[float, str]] = []  # heap: when each failed generation gives its hold back
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
            saved = (Generation.model_validate_json(path.read_bytes()) for path in self._folder.glob("*.json"))
            for generation in sorted(saved, key=lambda generation: generation.created):
                self._enter(generation)

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Generation]:
        """All, newest first, as of now."""
        return iter(list(self._newest_first))

    def get(self, generation_id: str) -> Generation | None:
        """The generation of this id."""
        return self._by_id.get(generation_id)

    def linked(self, link: str) -> Generation | None:
        """The generation of this CDN link."""
        return self._by_link.get(link)

    @property
    def balance(self) -> int:
        """What is left, in credits: holds are off it at once, those of failed generations come back at their end."""
        now = self._clock()
        # Only reads: a test may ask from its own thread.
        due = sum(self._by_id[name].credit_hold for when, name in list(self._refunds) if when <= now)
        return round(self._knobs.balance_usd * models.CREDITS_PER_USD) - self._spent + due

    def accept(self, order: Order, *, style: str = "id_nanoid", stuck: bool = False) -> Generation | None:
        """Enter an order and hold its price; None, and nothing held, when too little is left.

        Args:
            order: what was asked for.
            style: how its id looks: one of `faults.ID_STYLES`.
            stuck: it never ends.
        """
        cost = models.price(order.model, order.duration)
        now = self._clock()
        while self._refunds and self._refunds[0][0] <= now:
            self._spent -= self._by_id[heapq.heappop(self._refunds)[1]].credit_hold
        if self.balance < cost:
            return None
        seconds = self._knobs.generate_seconds
        if self._knobs.sigma:
            seconds *= self._pace.lognormvariate(0, self._knobs.sigma)
        generation = Generation(
            id=self._new_id(style, order.model),
            order=order,
            created=now,
            queued_until=now + seconds * self._knobs.queue_fraction,
            ready_at=now + (_NEVER_S if stuck else seconds),
            credit_hold=cost,
            link=self._nanoid(),
        )
        self._enter(generation)
        self._save(generation)
        return generation

    def decide(
        self,
        generation: Generation,
        outcome: Literal["video", "error"],
        *,
        error: object = None,
        image_sha256: list[str] | None = None,
        file: bool = False,
    ) -> None:
        """Write down how a generation ends; the first decision stands."""
        if generation.outcome is not None:
            return
        generation.outcome, generation.decided_at = outcome, self._clock()
        generation.error, generation.image_sha256, generation.file = error, image_sha256 or [], file
        self._refund(generation)
        self._save(generation)

    def rows(self, since: float) -> list[dict[str, object]]:
        """The rows of /v2/logs that are visible now, newest first, of generations created at `since` or later."""
        now, knobs = self._clock(), self._knobs
        rows = []
        for generation in self._newest_first:
            if generation.created < since:
                break
            ended = generation.ended_at
            seen_from = generation.created if knobs.logs_running_rows else ended
            if seen_from is not None and seen_from + knobs.log_delay_seconds <= now:
                rows.append(generation.row(now))
        return rows

    def _enter(self, generation: Generation) -> None:
        now = self._clock()
        self._by_id[generation.id] = self._by_link[generation.link] = generation
        self._newest_first.appendleft(generation)
        self._spent += generation.credit_hold
        self._refund(generation)
        self._counters.bill(generation.order.client_request_id)
        while self._open and self._open[0] <= now:
            heapq.heappop(self._open)
        if generation.ready_at > now:
            heapq.heappush(self._open, generation.ready_at)
            self._counters.peak_open = max(self._counters.peak_open, len(self._open))

    def _refund(self, generation: Generation) -> None:
        if generation.outcome == "error" and generation.ended_at is not None:
            heapq.heappush(self._refunds, (generation.ended_at, generation.id))

    def _save(self, generation: Generation) -> None:
        if self._folder is None:
            return
        path = self._folder / f"{generation.link}.json"
        part = path.with_suffix(".part")
        part.write_text(generation.model_dump_json(indent=1), encoding="utf-8")
        part.replace(path)

    def _new_id(self, style: str, model: str) -> str:
        while True:
            if style == "id_uuid":
                tier = "pro" if "-pro-" in model else "standard"
                new = f"{uuid.UUID(int=self._chance.getrandbits(128), version=4)}:kling-video/v1.6/{tier}/effects"
            else:
                new = self._nanoid()
                new = f"-{new[1:]}" if style == "id_dash" else new
            # A seeded sequence begins anew after a restart, and would give out the same ids again.
            if new not in self._by_id:
                return new

    def _nanoid(self) -> str:
        while True:
            new = self._chance.choice(_LETTERS) + "".join(self._chance.choices(_LETTERS + "_-", k=20))
            if new not in self._by_link and new not in self._by_id:
                return new

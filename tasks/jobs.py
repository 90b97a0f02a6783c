"""The words of this house, as types: job, source image, request, generation, video, record, outcome.

All are small, frozen and made of text and numbers: they travel through Prefect and lie in the ledger. None ever
holds the bytes of an image or of a video.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence  # noqa: TC003 - pydantic looks at annotations
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - pydantic reads it
from typing import Annotated, Self
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import EffectsError, JobState  # noqa: TC001 - pydantic reads JobState

JOB_ID_HEX_DIGITS = 32
"""128 bits: no two different wishes meet by chance."""

VERSIONS = frozenset({"versionid", "generation"})
"""Parts of a bucket's URL that name a version of the object, and nothing secret."""

_CHAINED = re.compile(r"::(?=[\w+.-]+://)")
"""Where a chained URL, such as `zip://a.jpg::https://…`, goes on with another one."""


def now() -> datetime:
    """The time that goes into the ledger: UTC."""
    return datetime.now(UTC)


def public_url(url: str) -> str:
    """The URL as it may be shown: without credentials, query and fragment, each of which can hold a signature."""
    if url.startswith("data:"):
        return url[: url.find(",") + 1] + "…"
    return "::".join(_public_link(link) for link in _CHAINED.split(url))


def _public_link(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # nobody can tell what in it is secret
        return f"{url.partition('://')[0]}://…"
    if parts.scheme not in {"http", "https"} and "@" not in parts.netloc:
        names = {name.lower() for name, _ in parse_qsl(parts.query)}
        if names <= VERSIONS:
            return url  # elsewhere `?` and `#` may be parts of a name, and a version says which picture it was
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


class _Word(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Job(_Word):
    """One wanted video, as it was asked for.

    Attributes:
        effect: a row of the catalogue.
        images: one fsspec URL each, in order: the first is the person on the left.
        duration: seconds; what is allowed is the catalogue's to say.
        model: the provider's model id, or None for the catalogue's default.
        take: 0, 1, 2…: another variation of the same inputs, asked for on purpose.
    """

    effect: str
    images: tuple[str, ...]
    duration: int = 5
    model: str | None = None
    take: Annotated[int, Field(ge=0)] = 0


class SourceImage(_Word):
    """One image, fetched and hashed; its bytes lie in a scratch file until the job ends.

    Attributes:
        url: where it came from.
        sha256: of its bytes, in hex.
        size: bytes.
        path: the scratch file; never part of the ledger.
        width: pixels as a person sees them (EXIF orientation applied); 0 until it was validated.
        height: likewise.
        media_type: `image/jpeg` or `image/png` by content; empty until it was validated.
    """

    url: str
    sha256: str
    size: int
    path: Annotated[Path | None, Field(exclude=True)] = None
    width: int = 0
    height: int = 0
    media_type: str = ""


def job_id(effect: str, image_hashes: tuple[str, ...], duration: int, model: str, take: int) -> str:
    """The same wish has the same id, everywhere and for ever: image contents count, their names do not."""
    wish = {"effect": effect, "images": image_hashes, "duration": duration, "model": model, "take": take}
    text = json.dumps(wish, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:JOB_ID_HEX_DIGITS]


class Request(_Word):
    """A job whose images were looked at: everything that a submission needs, and what it will cost.

    Attributes:
        job_id: see `job_id`.
        sources: the images, in order.
        price_usd: expected price of one generation, from the catalogue.
    """

    job_id: str
    effect: str
    sources: tuple[SourceImage, ...]
    duration: int
    model: str
    take: int = 0
    price_usd: float

    def client_request_id(self, attempt: int) -> str:
        """Derived, never random: whoever knows the job can find its submission in the provider's log."""
        return f"{self.job_id}.{self.take}.{attempt}"

    def for_ledger(self) -> Request:
        """The same without signed queries and scratch paths."""
        sources = tuple(
            source.model_copy(update={"url": public_url(source.url), "path": None}) for source in self.sources
        )
        return self.model_copy(update={"sources": sources})


class Generation(_Word):
    """The provider's own task for one attempt.

    Attributes:
        id: opaque; may hold `/` and `:` or begin with `-`. Never a file name.
        status: the provider's word, as last seen.
        cost_usd: what the submission said it holds, or None where it did not say.
    """

    request: Request
    attempt: int
    id: str
    status: str = "queued"
    submitted_at: datetime
    cost_usd: float | None = None
    found_in_log: bool = False


class Video(_Word):
    """A finished generation whose result waits to be downloaded.

    Attributes:
        url: the provider's link. It may expire within minutes, and is never kept as the result.
        size: bytes as announced, or None.
        looks: how many looks it took.
    """

    generation: Generation
    url: str
    size: int | None = None
    looks: int
    seen_at: datetime


class VideoFacts(_Word):
    """What a video file was found to be, by decoding it.

    Attributes:
        sha256: of the file, in hex.
        size: bytes.
        seconds: length.
        codec: of the pictures, such as `h264`.
        sound: codec of the sound, or None where there is none.
    """

    sha256: str
    size: int
    seconds: float
    width: int
    height: int
    frames: int
    codec: str
    sound: str | None = None


class Record(_Word):
    """`metadata.json`: written last; its presence means done.

    Attributes:
        video: URL of the stored video.
        seconds: from the submission until the video was stored.
        versions: of what made it.
    """

    job_id: str
    effect: str
    duration: int
    model: str
    take: int
    sources: tuple[SourceImage, ...]
    attempt: int
    generation_id: str
    client_request_id: str
    cost_usd: float | None
    submitted_at: datetime
    seen_at: datetime
    stored_at: datetime
    seconds: float
    looks: int
    video: str
    poster: str | None
    facts: VideoFacts
    versions: dict[str, str]


class Outcome(_Word):
    """What became of one job: the JSON document of `effects generate`.

    Attributes:
        state: exactly one named state.
        video: URL of the stored video.
        metadata: URL of its `metadata.json`.
        cost_usd: what this run spent on it: 0 where it was reused or nothing was accepted.
        seconds: how long this run took over it.
        reason: what happened and what to do next; None where the video is there.
        looks: how many this run took to see its end; not part of the document.
        final: of an error: whether asking for the same again ends the same; not part of the document.
    """

    state: JobState
    job_id: str | None = None
    effect: str
    generation_id: str | None = None
    attempt: int | None = None
    video: str | None = None
    metadata: str | None = None
    cost_usd: float = 0.0
    seconds: float = 0.0
    reason: str | None = None
    looks: Annotated[int, Field(exclude=True)] = 0
    final: Annotated[bool, Field(exclude=True)] = False

    @classmethod
    def from_error(cls, effect: str, error: EffectsError, *, request: Request | None = None) -> Outcome:
        """The outcome of a job that ended in an error: its state, the reason and the next move."""
        return cls(
            state=error.state,
            job_id=error.job_id or (request.job_id if request else None),
            effect=effect,
            generation_id=error.generation_id,
            attempt=error.attempt,
            reason=f"{error.reason} → {error.next_move}",
            final=error.final,
        )


class RowOutcome(Outcome):
    """The same for one row of a manifest.

    Attributes:
        name: of the row.
        row: its number in the manifest, from 1.
    """

    name: str
    row: int

    @classmethod
    def of(cls, row: int, name: str, outcome: Outcome) -> RowOutcome:
        """An outcome with its row."""
        return cls(name=name, row=row, **dict(outcome))


class Summary(_Word):
    """What became of many jobs: the JSON document of `effects resume`.

    Attributes:
        counts: jobs by state; they sum to the number of rows.
        cost_usd: what this run has committed, by the provider's own figures where it gave them.
        rows: one outcome a job.
    """

    counts: dict[JobState, int]
    cost_usd: float
    rows: tuple[Outcome, ...]

    @classmethod
    def of(cls, rows: Sequence[Outcome]) -> Self:
        """Count the outcomes."""
        counts = Counter(row.state for row in rows)
        cost = round(sum(row.cost_usd for row in rows), 6)
        return cls(counts=dict(counts.most_common()), cost_usd=cost, rows=tuple(rows))

    @property
    def line(self) -> str:
        """Such as `3 completed, 1 open`."""
        return ", ".join(f"{count} {state}" for state, count in self.counts.items()) or "nothing to do"


class BatchSummary(Summary):
    """The same of a manifest's rows: the JSON document of `effects batch`."""

    rows: tuple[RowOutcome, ...]

"""The ledger by itself: what its files say of a job, whichever of them are there and whatever state they are in."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.errors import StorageError
from tasks.jobs import Generation, Record, Request, SourceImage, VideoFacts, now
from tasks.ledger import CLAIM_VALID_S, ClaimDocument, Failure, Ledger
from tasks.storage import Storage

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel

    from tasks.ledger import Stage

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECRET = "https://me:s3cret@host/left.jpg?X-Amz-Signature=s3cret"


def _request(take: int = 0) -> Request:
    sources = (
        SourceImage(url=SECRET, sha256="a" * 64, size=3, path=Path("/scratch/s3cret"), width=400, height=300),
        SourceImage(url="s3://bucket/right.jpg?versionId=7", sha256="b" * 64, size=4),
    )
    return Request(
        job_id=f"{take:032x}", effect="hug", sources=sources, duration=5, model="m", take=take, price_usd=0.5
    )


def _generation(attempt: int = 1) -> Generation:
    return Generation(request=_request(), attempt=attempt, id=f"-gen/{attempt}:x", submitted_at=AT, cost_usd=0.5)


def _failure(*, counts: bool = True) -> Failure:
    return Failure(kind="never_sent", reason="no", again=True, counts=counts, at=AT)


def _record() -> Record:
    request = _request().for_ledger()
    return Record(
        **request.model_dump(include={"job_id", "effect", "duration", "model", "take"}),
        sources=request.sources,
        attempt=1,
        generation_id="-gen/1:x",
        client_request_id=request.client_request_id(1),
        cost_usd=0.5,
        submitted_at=AT,
        seen_at=AT,
        stored_at=AT,
        seconds=1.0,
        looks=2,
        video="video.mp4",
        poster=None,
        facts=VideoFacts(sha256="c" * 64, size=9, seconds=5.0, width=1, height=1, frames=1, codec="h264"),
        versions={},
    )


DOCUMENTS: dict[str, Callable[[], BaseModel]] = {
    "claim": lambda: ClaimDocument(claimant="somebody", at=AT, client_request_id="x.0.1"),
    "generation": _generation,
    "failure": _failure,
    "free": lambda: _failure(counts=False),
}


async def _put(ledger: Ledger, name: str) -> None:
    """Write `1/claim`, a document that was `1/claim cut`, an `empty` one, or one of `other` words."""
    path, _, damage = name.partition(" ")
    attempt, _, kind = path.partition("/")
    data = DOCUMENTS[kind]().model_dump_json().encode() if kind in DOCUMENTS else b"film"
    data = {"": data, "cut": data[: len(data) // 2], "empty": b"", "other": b'{"hello": "world"}'}[damage]
    file = {"free": "failure.json", "film": "unexpected.mp4"}.get(kind, f"{kind}.json")
    await ledger.storage.write(f"{ledger.folder(_request())}/attempts/{attempt}/{file}", data)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger(Storage("videos"))


@pytest.mark.parametrize(
    ("files", "attempt", "stage", "tries"),
    [
        ([], 0, "new", 0),
        (["1/claim"], 1, "claimed", 1),
        (["1/claim", "1/generation"], 1, "generating", 1),
        (["1/claim", "1/failure"], 1, "failed", 1),
        (["1/claim", "1/free"], 1, "failed", 0),
        (["1/claim", "1/generation", "1/failure"], 1, "failed", 1),
        (["1/claim", "1/failure", "2/claim"], 2, "claimed", 2),
        (["1/claim", "1/free", "2/claim", "2/generation"], 2, "generating", 1),
        (["1/claim", "1/free", "2/claim", "2/failure"], 2, "failed", 1),
        # An earlier attempt's id that came late does not hide where the latest stands.
        (["1/claim", "1/failure", "1/generation", "2/claim"], 2, "claimed", 2),
        # Gaps: what is missing was perhaps never there; what counts is the latest.
        (["3/claim", "3/generation"], 3, "generating", 1),
        (["1/claim", "1/failure", "4/claim"], 4, "claimed", 2),
        (["2/generation"], 2, "generating", 1),
        (["9/claim", "9/failure", "10/claim"], 10, "claimed", 2),
        # Damaged documents say nothing, and their attempt is never taken for one that may be sent anew.
        (["1/claim empty"], 1, "claimed", 1),
        (["1/claim cut"], 1, "claimed", 1),
        (["1/claim other"], 1, "claimed", 1),
        (["1/claim", "1/generation empty"], 1, "claimed", 1),
        (["1/claim", "1/generation cut"], 1, "claimed", 1),
        (["1/claim", "1/generation other"], 1, "claimed", 1),
        (["1/claim", "1/failure empty"], 1, "claimed", 1),
        (["1/claim", "1/free cut"], 1, "claimed", 1),
        (["1/claim", "1/generation", "1/failure cut"], 1, "generating", 1),
        (["1/claim", "1/free cut", "2/claim", "2/failure"], 2, "failed", 2),
        (["1/claim cut", "1/generation"], 1, "generating", 1),
        # Other files beside them.
        (["1/claim", "1/generation", "1/film"], 1, "generating", 1),
        (["1/film"], 1, "claimed", 1),
        (["1/claim", "notes/claim"], 1, "claimed", 1),
    ],
)
async def test_where_a_job_stands_is_what_its_files_say(
    files: list[str], attempt: int, stage: Stage, tries: int, ledger: Ledger
) -> None:
    """Every combination that a crash, a store or a person can leave behind."""
    for name in files:
        await _put(ledger, name)
    standing = await ledger.standing(_request())
    assert (standing.attempt, standing.stage, standing.tries) == (attempt, stage, tries)
    assert (standing.generation is not None) == (stage == "generating")
    assert (standing.failure is not None) == (stage == "failed")
    assert (standing.claimed_at is not None) == (stage == "claimed" and not files[-1].startswith("1/film"))


async def test_a_claim_never_looks_older_than_it_is(ledger: Ledger) -> None:
    """Of the claimant's clock and the store's, the later counts; a claim that cannot be read has the store's."""
    await _put(ledger, "1/claim")
    written = (await ledger.standing(_request())).claimed_at
    assert written is not None
    assert now() - written < timedelta(minutes=1), "the document says years ago, the file was written just now"
    document = ClaimDocument(claimant="x", at=AT.replace(year=2099), client_request_id="y")
    path = f"{ledger.folder(_request())}/attempts/1/claim.json"
    await ledger.storage.write(path, document.model_dump_json().encode())
    assert (await ledger.standing(_request())).claimed_at == document.at


async def test_other_jobs_and_other_effects_do_not_count(ledger: Ledger) -> None:
    """Each job has a folder of its own."""
    await ledger.claim(_request(take=1), 1)
    await ledger.claim(_request().model_copy(update={"effect": "kiss"}), 1)
    assert (await ledger.standing(_request())).stage == "new"


async def test_a_job_is_open_until_it_is_closed(ledger: Ledger) -> None:
    """The list holds what is unfinished and nothing else."""
    assert await ledger.open_requests() == []
    for take in range(3):
        await ledger.open(_request(take))
        await ledger.open(_request(take))
    await ledger.claim(_request(), 1)
    await ledger.record_generation(_generation())
    assert [request.take for request in await ledger.open_requests()] == [0, 1, 2]
    await ledger.close(_request(1))
    await ledger.close(_request(1))
    assert [request.take for request in await ledger.open_requests()] == [0, 2]


async def test_what_is_open_is_all_that_a_resumption_needs(ledger: Ledger) -> None:
    """The request comes back as it was, without what is secret; the first to open it is the one who is kept."""
    await ledger.open(_request())
    await ledger.open(_request().model_copy(update={"price_usd": 99.0}))
    assert await ledger.open_requests() == [_request().for_ledger()]


async def test_litter_in_the_list_hides_no_job(ledger: Ledger) -> None:
    """A half-written file, one that is no request, one of another kind; and asking for a job mends its own entry."""
    await ledger.storage.write(f"_open/{_request().job_id}.json", b"{")
    await ledger.open(_request())
    for name, data in {"0.json": b"{", "1.json": b"{}", "x.json.1234.part": b"{", "notes.txt": b"x"}.items():
        await ledger.storage.write(f"_open/{name}", data)
    assert await ledger.open_requests() == [_request().for_ledger()]


def test_the_ledger_is_told_nothing_secret() -> None:
    """No credentials, no signed queries, no scratch paths; a version stays, since it says which picture it was."""
    kept = _request().for_ledger()
    assert [source.url for source in kept.sources] == ["https://host/left.jpg", "s3://bucket/right.jpg?versionId=7"]
    assert [source.path for source in kept.sources] == [None, None]
    assert [source.sha256 for source in kept.sources] == ["a" * 64, "b" * 64]
    assert kept.for_ledger() == kept
    assert _request().sources[0].url == SECRET


async def test_no_file_of_the_ledger_holds_a_secret(ledger: Ledger) -> None:
    """Whatever is written, by whichever door."""
    await ledger.open(_request())
    await ledger.claim(_request(), 1)
    await ledger.record_generation(_generation())
    await ledger.record_failure(_request(), 1, _failure())
    await ledger.record_video(_request(), _record())
    files = [path for path in Path("videos").rglob("*") if path.is_file()]
    assert len(files) == 5
    for path in files:
        assert "s3cret" not in path.read_text()
        assert "path" not in json.loads(path.read_text())


async def test_a_record_is_there_only_when_it_is_whole(ledger: Ledger) -> None:
    """A job is done when its metadata can be read, not a byte earlier."""
    assert await ledger.record(_request()) is None
    path, data = f"{ledger.folder(_request())}/metadata.json", _record().model_dump_json().encode()
    for part in (b"", data[: len(data) // 2], data[:-1], b"<html>", b"{}"):
        await ledger.storage.write(path, part)
        assert await ledger.record(_request()) is None
    await ledger.record_video(_request(), _record())
    assert await ledger.record(_request()) == _record()
    assert ledger.url_of(_request(), "metadata.json") == str(Path("videos", "hug", "0" * 32, "metadata.json").resolve())


async def test_a_later_version_may_write_more_than_this_one_reads(ledger: Ledger) -> None:
    """A finished job stays finished, a generation can be resumed."""
    more = {**json.loads(_record().model_dump_json()), "mood": "good"}
    await ledger.storage.write(f"{ledger.folder(_request())}/metadata.json", json.dumps(more).encode())
    assert await ledger.record(_request()) == _record()


async def test_an_id_comes_back_as_it_was(ledger: Ledger) -> None:
    """Ids are opaque: they may hold slashes and colons, and begin with a dash."""
    await ledger.claim(_request(), 1)
    await ledger.record_generation(_generation())
    found = (await ledger.standing(_request())).generation
    assert found == _generation().model_copy(update={"request": _request().for_ledger()})


@pytest.mark.parametrize("kind", ["file", "memory", "s3"])
async def test_of_sixteen_that_claim_one_wins(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Each with its own connection, on every kind of target; a claim is never given twice, nor given back."""
    root = {"file": str(tmp_path / "target"), "memory": "memory://target"}.get(kind) or request.getfixturevalue("s3")
    claims = await asyncio.gather(*(Ledger(Storage(root)).claim(_request(), 1) for _ in range(16)))
    assert sum(claim is not None for claim in claims) == 1
    assert await Ledger(Storage(root)).claim(_request(), 1) is None
    second = await Ledger(Storage(root)).claim(_request(), 2)
    assert second is not None
    assert second.attempt == 2


async def test_a_claim_runs_out_by_the_clock_of_its_holder() -> None:
    """From the moment before it was written: it only ever looks older than it is."""
    time = {"now": 1000.0}

    class Slow(Storage):
        async def create(self, path: str, data: bytes) -> bool:
            time["now"] += 7.0
            return await super().create(path, data)

    claim = await Ledger(Slow("videos"), clock=lambda: time["now"]).claim(_request(), 1)
    assert claim is not None
    assert claim.left_s() == CLAIM_VALID_S - (time["now"] - 1000.0) <= CLAIM_VALID_S - 7.0
    time["now"] = 1000.0 + CLAIM_VALID_S
    assert claim.left_s() == 0.0
    time["now"] += 100.0
    assert claim.left_s() == -100.0


class _Store(Storage):
    """A store whose answer to the first exclusive write is not to be relied on."""

    def __init__(self, *, written: bool, answer: bool | None) -> None:
        super().__init__("videos")
        self.written, self.answer, self.asked = written, answer, 0

    async def create(self, path: str, data: bytes) -> bool:
        self.asked += 1
        if self.asked > 1:
            return await super().create(path, data)
        if self.written:
            await super().create(path, data)
        if self.answer is None:
            raise StorageError("the connection broke")
        return self.answer


async def test_a_claim_whose_answer_was_lost_is_read_back() -> None:
    """The file says who holds it: whoever broke the connection, or met its own write."""
    assert await Ledger(_Store(written=True, answer=None)).claim(_request(), 1)
    assert await Ledger(_Store(written=True, answer=False)).claim(_request(), 2)


async def test_a_claim_that_is_not_certain_is_none() -> None:
    """Nothing may be sent on the strength of an error; and a lost race stays lost."""
    with pytest.raises(StorageError):
        await Ledger(_Store(written=False, answer=None)).claim(_request(), 1)
    assert await Ledger(Storage("videos")).claim(_request(), 1)
    with pytest.raises(StorageError):
        await Ledger(_Store(written=False, answer=None)).claim(_request(), 1)
    assert await Ledger(_Store(written=False, answer=False)).claim(_request(), 1) is None


async def test_a_store_that_lets_everybody_in_gives_no_claim() -> None:
    """Some take the condition and ignore it: there, every racer would pay."""

    class Open(Storage):
        async def create(self, path: str, data: bytes) -> bool:
            await self.write(path, data)
            return True

    with pytest.raises(StorageError, match="paid for twice") as caught:
        await Ledger(Open("videos")).claim(_request(), 1)
    assert caught.value.lasting


async def test_a_stored_file_is_measured(ledger: Ledger, tmp_path: Path) -> None:
    """What arrives short is told, with its place and both sizes."""
    (tmp_path / "film").write_bytes(b"12345")

    class Short(Storage):
        async def upload(self, path: str, local: Path) -> None:
            await self.write(path, local.read_bytes()[:3])

    await ledger.store_file(_request(), "video.mp4", tmp_path / "film")
    with pytest.raises(StorageError, match=r"video\.mp4 has 3 bytes after 5 were written"):
        await Ledger(Short("videos")).store_file(_request(), "video.mp4", tmp_path / "film")

"""The ledger's rules, each broken once. A suite that does not notice has proved nothing."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, Any

import flows.generate
import flows.resume
import tasks.ledger
import tasks.persist
import tasks.poll
import tasks.reconcile
import tasks.submit
from tasks.errors import GenerationTimeout, SubmitUnknown
from tasks.jobs import Request, now
from tasks.ledger import Claim, ClaimDocument, Failure, Ledger
from tests.crash.world import SimulatedStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from tasks.jobs import Generation, Record
    from tasks.workspace import Workspace

    Mutation = Callable[[pytest.MonkeyPatch], None]


def claim_after_post(patch: pytest.MonkeyPatch) -> None:
    """Rule 1: the POST is sent first, the claim is written when the answer is there."""
    send = tasks.submit._send
    claim = Ledger.claim

    async def only_look(self: Ledger, request: Request, attempt: int) -> Claim | None:
        path = f"{self._attempt(request, attempt)}/claim.json"
        if await self.storage.size(path) is not None:
            return None
        return Claim(request, attempt, self._clock(), self._clock)

    async def send_then_claim(held: Claim, urls: tuple[str, ...], workspace: Workspace) -> Generation:
        generation = await send(held, urls, workspace)
        await claim(workspace.ledger, held.request, held.attempt)
        return generation

    patch.setattr(Ledger, "claim", only_look)
    patch.setattr(tasks.submit, "_send", send_then_claim)


def plain_create(patch: pytest.MonkeyPatch) -> None:
    """Rule 1: a plain write in place of the exclusive creation, after a look whether the file is there."""

    async def create(self: SimulatedStorage, path: str, data: bytes) -> bool:
        if await self.size(path) is not None:
            return False
        await self.write(path, data)
        return True

    async def believed(self: Ledger, request: Request, attempt: int) -> Claim | None:
        made_at, path = self._clock(), f"{self._attempt(request, attempt)}/claim.json"
        document = ClaimDocument(claimant=uuid.uuid4().hex, at=now(), client_request_id="")
        won = await self.storage.create(path, tasks.ledger._json(document))
        return Claim(request, attempt, made_at, self._clock) if won else None

    patch.setattr(SimulatedStorage, "create", create)
    patch.setattr(Ledger, "claim", believed)


def random_request_id(patch: pytest.MonkeyPatch) -> None:
    """Rule 2: an id that cannot be found again after a crash."""

    def drawn(self: Request, attempt: int) -> str:
        return f"{self.job_id}.{uuid.uuid4().hex[:4]}.{attempt}"

    patch.setattr(Request, "client_request_id", drawn)


def no_lookup(patch: pytest.MonkeyPatch) -> None:
    """Rule 3: an unknown outcome is never looked up."""

    async def nothing(*_: Any) -> None:  # noqa: ANN401
        return None

    patch.setattr(tasks.reconcile, "reconcile", nothing)


def resubmit_on_unknown(patch: pytest.MonkeyPatch) -> None:
    """Rule 3: what the log does not show is taken for never submitted."""
    look_up = tasks.reconcile.look_up

    async def give_up(request: Request, attempt: int, workspace: Workspace, **named: Any) -> Generation:  # noqa: ANN401
        try:
            return await look_up(request, attempt, workspace, **named)
        except SubmitUnknown:
            failure = Failure(kind="never_sent", reason="not in the log", again=True, counts=False, at=now())
            await workspace.ledger.record_failure(request, attempt, failure)
            raise

    for module in (tasks.submit, tasks.reconcile):
        patch.setattr(module, "look_up", give_up)


def unknown_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    """Rule 3: a lost answer is taken for a request that never left."""
    once = tasks.submit._once

    async def twice(claim: Claim, urls: tuple[str, ...], provider: Any) -> Any:  # noqa: ANN401
        try:
            return await once(claim, urls, provider)
        except SubmitUnknown:
            return await once(claim, urls, provider)

    patch.setattr(tasks.submit, "_once", twice)


def claim_never_expires(patch: pytest.MonkeyPatch) -> None:
    """Rule 3: a claimant that was held up sends late, behind the back of who was allowed to send again."""
    patch.setattr(Claim, "left_s", lambda _: 60.0)


def resubmission_without_margin(patch: pytest.MonkeyPatch) -> None:
    """Rule 3: a person may have it sent again while its claimant may still send."""
    patch.setattr(tasks.reconcile, "RESUBMIT_AFTER_S", 0.0)
    patch.setattr(tasks.reconcile, "NEIGHBOUR_S", 0.0)


def attempt_without_failure(patch: pytest.MonkeyPatch) -> None:
    """Rule 5: the next attempt opens when waiting has taken too long."""
    poll = tasks.poll.poll

    async def impatient(generation: Generation, workspace: Workspace, wait: Any) -> Any:  # noqa: ANN401
        try:
            return await poll(generation, workspace, wait)
        except GenerationTimeout:
            failure = Failure(kind="timeout", reason="too slow", again=True, counts=False, at=now())
            await workspace.ledger.record_failure(generation.request, generation.attempt, failure)
            raise

    patch.setattr(tasks.poll, "poll", impatient)


def metadata_before_video(patch: pytest.MonkeyPatch) -> None:
    """Rule 7: the job is called done before its video is stored."""
    store, finish = Ledger.store_file, Ledger.record_video
    late: list[tuple[Any, ...]] = []

    async def postpone(self: Ledger, *arguments: Any) -> None:  # noqa: ANN401
        late.append((self, *arguments))

    async def finish_first(self: Ledger, request: Request, record: Record) -> None:
        await finish(self, request, record)
        mine = [call for call in late if call[0] is self]
        for call in mine:
            late.remove(call)
            await store(*call)

    patch.setattr(Ledger, "store_file", postpone)
    patch.setattr(Ledger, "record_video", finish_first)


def generation_not_kept(patch: pytest.MonkeyPatch) -> None:
    """Rule 4: the provider's id is only held in memory."""

    async def forget(*_: Any) -> None:  # noqa: ANN401
        await asyncio.sleep(0)

    patch.setattr(tasks.submit, "keep_generation", forget)


def open_list_cleared_early(patch: pytest.MonkeyPatch) -> None:
    """Rule 6: a wait that was too long takes the job off the list of what is open."""
    make = flows.generate.make_video

    async def tidy(request: Request, workspace: Workspace) -> Record:
        try:
            return await make(request, workspace)
        except GenerationTimeout:
            await workspace.end(request)
            raise

    patch.setattr(flows.generate, "make_video", tidy)
    patch.setattr(flows.resume, "make_video", tidy)


def unchecked_video(patch: pytest.MonkeyPatch) -> None:
    """Rule 7: whatever was downloaded is stored as the video, and what was announced is written about it."""
    store = Ledger.store_file

    async def half(self: Ledger, request: Request, name: str, local: Any) -> None:  # noqa: ANN401
        if name == "video.mp4":
            data = local.read_bytes()
            local.write_bytes(data[: len(data) // 2])
        await store(self, request, name, local)

    patch.setattr(Ledger, "store_file", half)


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__: mutation
    for mutation in (
        claim_after_post,
        plain_create,
        random_request_id,
        no_lookup,
        resubmit_on_unknown,
        unknown_is_sent_again,
        claim_never_expires,
        resubmission_without_margin,
        attempt_without_failure,
        metadata_before_video,
        generation_not_kept,
        open_list_cleared_early,
        unchecked_video,
    )
}

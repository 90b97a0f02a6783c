"""What survives a crash: the target's files, the provider, and time. What does not: processes, which live in it.

A process is the real code of the flows' logic, the steps, the ledger and the client. Around every one of its I/O
operations it can die, stall, or be told a lie; once dead, nothing that it still tries has any effect.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from deployments.sandbox.provider import Provider as SandboxProvider
from tasks.effects import load_catalogue
from tasks.errors import StorageError
from tasks.ledger import Ledger
from tasks.provider import Provider
from tasks.settings import Settings
from tasks.storage import Storage
from tasks.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from deployments.sandbox.knobs import Knobs

T = TypeVar("T")

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
CATALOGUE = load_catalogue()
TIMEOUT_S = 120.0


class Killed(BaseException):
    """The process is gone. Not an Exception: no code of ours may catch it and go on."""


@dataclass
class Chaos:
    """What may happen around an I/O operation, as probabilities; or one death, at an operation told by number.

    Attributes:
        crash: the process dies, before or after the operation took effect.
        fail: the operation fails, before or after it took effect.
        stall: the process stands still for up to `stall_s` seconds before it, or behind it.
        die_at: (operation, whether after it took effect).
        stall_at: (operation, seconds for which the process stands still behind it).
    """

    crash: float = 0.0
    fail: float = 0.0
    stall: float = 0.0
    stall_s: float = 3000.0
    die_at: tuple[int, bool] | None = None
    stall_at: tuple[int, float] | None = None


@dataclass
class World:
    """One simulated world.

    Attributes:
        files: the target: path to (bytes, when written).
        sent: submissions that reached the provider: client request id and time.
        violations: what must never happen and did, in words.
        operations: how many I/O operations were begun.
    """

    seed: int
    knobs: Knobs
    loop: asyncio.AbstractEventLoop
    files: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    operations: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)  # noqa: S311 - simulation
        self.chaos = Chaos()
        self.provider = SandboxProvider(self.knobs, clock=self.wall_clock)
        self.network = httpx.ASGITransport(app=self.provider)

    def wall_clock(self) -> float:
        """Seconds since the epoch."""
        return EPOCH.timestamp() + self.loop.time()

    def now(self) -> datetime:
        """The same, as the ledger writes it."""
        return EPOCH + timedelta(seconds=self.loop.time())

    def check_send(self, client_request_id: str) -> None:
        """Look at the ledger at the moment in which a submission reaches the provider."""
        job_id, _, attempt = client_request_id.split(".")
        folder = f"hug/{job_id}/attempts"
        if f"{folder}/{attempt}/claim.json" not in self.files:
            self.violations.append(f"{client_request_id} was sent without a claim")
        if f"{folder}/{attempt}/failure.json" in self.files:
            self.violations.append(f"{client_request_id} was sent after its attempt had been given up")
        for earlier in range(1, int(attempt)):
            if f"{folder}/{earlier}/failure.json" not in self.files:
                self.violations.append(f"{client_request_id} was sent while attempt {earlier} had not failed")

    def check_done(self, path: str) -> None:
        """Look at a finished job whenever one of its files changes."""
        folder = path.rsplit("/", 1)[0]
        metadata = self.files.get(f"{folder}/metadata.json")
        if metadata is None:
            return
        from tests.crash.invariants import is_whole  # noqa: PLC0415 - it looks at worlds

        if not is_whole(metadata[0], self.files.get(f"{folder}/video.mp4", (b"", 0))[0]):
            self.violations.append(f"{folder}: metadata.json speaks of a video that is not there as it says")


class Process:
    """A process that can die: its storage, its network, its workspace.

    Args:
        scratch: a local folder that outlives nothing.
    """

    def __init__(self, world: World, scratch: Path) -> None:
        self.world = world
        self.dead = False
        settings = Settings(
            api_url="http://provider",
            allow_private_hosts=True,
            delivery="link",
            generation_timeout_s=TIMEOUT_S,
            poll_interval_s=5.0,
        )
        provider = Provider(
            settings.api_url,
            "key",
            CATALOGUE.provider.path,
            private_hosts=True,
            transport=SimulatedNetwork(self),
        )
        ledger = Ledger(SimulatedStorage(self), clock=world.loop.time)
        self.workspace = Workspace(settings, CATALOGUE, ledger, provider, scratch)

    async def io(self, act: Callable[[], Awaitable[T]], failure: Callable[[], Exception], *, stalls: bool = True) -> T:
        """One operation, with all that may happen around it."""
        world, chaos, chance = self.world, self.world.chaos, self.world.rng.random
        self.live()
        number, world.operations = world.operations, world.operations + 1
        await asyncio.sleep(world.rng.uniform(0.0, 0.05))  # others get their turn
        if stalls and chance() < chaos.stall:
            await asyncio.sleep(world.rng.uniform(0.0, chaos.stall_s))
        self.live()
        if chaos.die_at == (number, False) or chance() < chaos.crash:
            self.die()
        if chance() < chaos.fail:
            raise failure()
        result = await act()
        if stalls and chance() < chaos.stall:
            await asyncio.sleep(world.rng.uniform(0.0, chaos.stall_s))
        if chaos.stall_at and chaos.stall_at[0] == number:
            await asyncio.sleep(chaos.stall_at[1])
        self.live()
        if chaos.die_at == (number, True) or chance() < chaos.crash:
            self.die()
        if chance() < chaos.fail:
            raise failure()
        return result

    def live(self) -> None:
        """Go on only if this process still exists."""
        if self.dead:
            raise Killed

    def die(self) -> None:
        """`kill -9`."""
        self.dead = True
        raise Killed


class SimulatedStorage(Storage):
    """The target, in memory, seen from one process."""

    def __init__(self, process: Process) -> None:
        self._process, self._world = process, process.world
        self.url, self.local, self.atomic_put = "sim://target", False, True

    def url_of(self, path: str) -> str:  # noqa: D102
        return f"sim://target/{path}"

    async def read(self, path: str) -> bytes | None:  # noqa: D102
        async def act() -> bytes | None:
            return self._world.files[path][0] if path in self._world.files else None

        return await self._process.io(act, _away)

    async def write(self, path: str, data: bytes) -> None:  # noqa: D102
        async def act() -> None:
            self._world.files[path] = (data, self._world.wall_clock())
            self._world.check_done(path)

        await self._process.io(act, _away)

    async def upload(self, path: str, local: Path) -> None:  # noqa: D102
        await self.write(path, local.read_bytes())

    async def create(self, path: str, data: bytes) -> bool:  # noqa: D102
        async def act() -> bool:
            if path in self._world.files:
                return False
            self._world.files[path] = (data, self._world.wall_clock())
            return True

        return await self._process.io(act, _away)

    async def size(self, path: str) -> int | None:  # noqa: D102
        async def act() -> int | None:
            return len(self._world.files[path][0]) if path in self._world.files else None

        return await self._process.io(act, _away)

    async def modified(self, path: str) -> datetime | None:  # noqa: D102
        async def act() -> datetime | None:
            found = self._world.files.get(path)
            return datetime.fromtimestamp(found[1], UTC) if found else None

        return await self._process.io(act, _away)

    async def list(self, folder: str) -> tuple[str, ...]:  # noqa: D102
        async def act() -> tuple[str, ...]:
            return tuple(sorted(path for path in self._world.files if path.startswith(f"{folder}/")))

        return await self._process.io(act, _away)

    async def delete(self, path: str) -> None:  # noqa: D102
        async def act() -> None:
            self._world.files.pop(path, None)

        await self._process.io(act, _away)


class SimulatedNetwork(httpx.AsyncBaseTransport):
    """The way to the provider: requests are lost before they arrive, answers on their way back."""

    def __init__(self, process: Process) -> None:
        self._process, self._world = process, process.world

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:  # noqa: D102
        world, process = self._world, self._process
        arrived = False

        async def act() -> httpx.Response:
            nonlocal arrived
            arrived = True
            if request.method == "POST":
                world.check_send(request.headers["x-client-request-id"])
            # The provider goes on with what it was sent, whatever becomes of us.
            serving = asyncio.ensure_future(world.network.handle_async_request(request))
            timeout = request.extensions.get("timeout", {}).get("read")
            done, _ = await asyncio.wait({serving}, timeout=timeout)
            if not done:
                serving.add_done_callback(_ignore)
                raise httpx.ReadTimeout("no answer in time", request=request)
            response = serving.result()
            response.stream = _Download(process, b"".join([chunk async for chunk in response.stream]))  # type: ignore[union-attr]
            return response

        def failure() -> Exception:
            if not arrived:
                return httpx.ConnectError("connection refused", request=request)
            return httpx.ReadError("connection reset", request=request)

        # A process that stands still between its last look at the clock and the wire is bounded by the margin of
        # RESUBMIT_AFTER_S; longer stalls come before the look, around the storage's operations.
        return await process.io(act, failure, stalls=False)


class _Download(httpx.AsyncByteStream):
    """A body that comes in two halves, with a point to die between them."""

    def __init__(self, process: Process, body: bytes) -> None:
        self._process, self._body = process, body

    async def __aiter__(self) -> Any:  # noqa: ANN401 - an async generator
        middle = len(self._body) // 2

        async def act() -> bytes:
            return self._body[middle:]

        yield self._body[:middle]
        if len(self._body) > 2000:
            yield await self._process.io(act, lambda: httpx.ReadError("connection reset"), stalls=False)
        else:
            yield self._body[middle:]


def _away() -> Exception:
    return StorageError("the storage is away")


def _ignore(task: asyncio.Future[Any]) -> None:
    if not task.cancelled():
        task.exception()

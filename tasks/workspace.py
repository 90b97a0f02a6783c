"""What the steps of one run share: settings, catalogue, ledger, the provider's connection, a scratch folder."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.budget import Budget
from tasks.delivery import withdraw
from tasks.effects import load_catalogue
from tasks.errors import BadInput, EffectsError, StorageError
from tasks.histories import Histories
from tasks.ledger import Ledger
from tasks.provider import Provider
from tasks.settings import Settings, load_settings
from tasks.storage import Storage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tasks.effects import Catalogue
    from tasks.errors import AccountTrouble
    from tasks.jobs import Request


log = logging.getLogger("effects")

PREPARED_AT_ONCE = 32
"""Jobs whose photos are on their way. Of hundreds that begin at once the first are submitted while the others still
look at their photos: an event loop would else have all of them fetch, then all of them validate, then all submit."""


class Workspace:
    """Everything that a step needs besides its input. Not a dataclass: Prefect must not look inside.

    Args:
        scratch: a folder for images and videos on their way; its owner removes it.

    Attributes:
        budget: what this run may spend, and has committed.
        histories: how long earlier generations took.
        preparing: held while a job's photos are fetched and looked at.
        trouble: set when the account cannot buy anything: from then on this run submits nothing.
    """

    def __init__(
        self, settings: Settings, catalogue: Catalogue, ledger: Ledger, provider: Provider, scratch: Path
    ) -> None:
        self.settings = settings
        self.catalogue = catalogue
        self.ledger = ledger
        self.provider = provider
        self.scratch = scratch
        self.budget = Budget(settings.budget_usd)
        self.histories = Histories(ledger.storage)
        self.preparing = asyncio.Semaphore(PREPARED_AT_ONCE)
        self.trouble: AccountTrouble | None = None
        self._turns: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, request: Request) -> AsyncIterator[None]:
        """One at a time for rows of a run that turn out to be the same job: the others then find its video there."""
        lock, waiting = self._turns.get(request.job_id, (asyncio.Lock(), 0))
        self._turns[request.job_id] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._turns.pop(request.job_id)
            if waiting > 1:
                self._turns[request.job_id] = lock, waiting - 1

    async def end(self, request: Request) -> None:
        """A job has come to its end: the staged copies of its photos go, and then it is not open any more.

        Never decides how the job ended: what cannot be tidied now is tidied by the next `resume`.
        """
        try:
            await withdraw(request, self.settings)
            await self.ledger.close(request)
        except EffectsError as error:
            log.warning("not tidied up: %s", error.reason, extra={"effect": request.effect, "job_id": request.job_id})


@asynccontextmanager
async def open_workspace(settings: Settings | None = None) -> AsyncIterator[Workspace]:
    """A workspace for one run; its connections and its scratch folder go when the run ends.

    Raises:
        BadInput: a setting, the catalogue file, the key or the target's URL does not fit.
    """
    settings = settings or load_settings()
    catalogue = load_catalogue(settings.catalogue)
    try:
        ledger = Ledger(Storage(settings.target))
    except StorageError as error:
        raise BadInput(f"the target does not fit: {error.reason}") from None
    key = settings.require_key()
    try:
        provider = Provider(
            settings.api_url, key, catalogue.provider.path, private_hosts=settings.private_hosts_allowed
        )
    except (ImportError, ValueError) as error:  # a proxy that the environment names, and that cannot be used
        raise BadInput(f"the connection to the provider cannot be set up: {error}") from None
    with tempfile.TemporaryDirectory(prefix="effects-") as scratch:
        async with provider:
            workspace = Workspace(settings, catalogue, ledger, provider, Path(scratch))
            try:
                yield workspace
            finally:
                await workspace.histories.keep()

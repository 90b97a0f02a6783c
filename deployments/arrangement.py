"""What the local stack runs with: inbox, target and provider, from what a person has set and what suits one machine."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tasks.effects import load_catalogue
from tasks.errors import BadInput, StorageError
from tasks.inbox import Inbox
from tasks.jobs import public_url
from tasks.settings import load_settings
from tasks.storage import Storage
from tasks.uploads import SETTLE_S

if TYPE_CHECKING:
    from tasks.effects import Effect
    from tasks.settings import Settings

INBOX = "./inbox"

SANDBOX_TARGET = "./sandbox-videos"
"""Where nobody said otherwise: among real videos, those of the sandbox would be taken for real."""


@dataclass(frozen=True)
class Arrangement:
    """What the stack runs with.

    Attributes:
        settings: as the runs will have them.
        said: of these, what the runs' environment has to say, by name.
        sandboxed: whether the sandbox makes the videos, since nobody gave a key.
    """

    settings: Settings
    said: dict[str, object] = field(default_factory=dict)
    sandboxed: bool = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What suits these settings.

        Raises:
            BadInput: something does not fit.
        """
        given = settings.model_fields_set
        said: dict[str, object] = {"inbox": _absolute(settings.inbox or INBOX), "target": _absolute(settings.target)}
        sandboxed = not settings.api_key and "api_url" not in given
        if sandboxed:
            said |= {"api_key": "sandbox", "poll_interval_s": settings.poll_interval_s or 1}
            if "delivery" not in given:
                said["delivery"] = "inline"  # photos and sandbox are on this machine
            if "target" not in given:
                said["target"] = _absolute(SANDBOX_TARGET)
        arranged = cls(settings, {}, sandboxed).saying(said)
        arranged.settings.require_key()
        Inbox(arranged.settings, load_catalogue(settings.catalogue))
        return arranged

    def saying(self, more: dict[str, object]) -> Self:
        """The same with these settings, too."""
        settings = load_settings(**self.settings.model_dump(exclude_unset=True) | more)
        return type(self)(settings, self.said | more, self.sandboxed)

    @property
    def environment(self) -> dict[str, str]:
        """For the processes of the stack."""
        return {f"EFFECTS_{name.upper()}": str(value) for name, value in self.said.items()}

    @property
    def inbox(self) -> str:
        """Where photos are dropped."""
        return str(self.settings.inbox)

    @property
    def sources(self) -> list[str]:
        """What the upload listener is to listen to; nothing where only looking helps."""
        if Storage(self.inbox).local:
            # Told any earlier, the run would have to wait until it may believe that the photos are whole.
            return ["--inbox", self.inbox, "--folder", "--quiet-s", f"{SETTLE_S:g}"]
        return ["--inbox", self.inbox, "--sqs"] if self.settings.uploads_queue else []

    def make_folders(self) -> None:
        """Show by folders where photos go.

        Raises:
            BadInput: they cannot be made.
        """
        if not Storage(self.inbox).local:
            return
        for effect in self._core():
            try:
                (Path(self.inbox) / effect.name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise BadInput(f"the inbox {self.inbox} cannot be made: {os.strerror(error.errno or 0)}") from None

    def lines(self) -> list[str]:
        """Where everything is, for a person."""
        one, two = ([effect.name for effect in self._core() if effect.images == images] for images in (1, 2))
        noticed = "" if self.sources else ", which is looked at every 5 minutes"
        paid = f"{self.settings.api_url}; its videos cost money"
        return [
            f"Photos     into {_shown(self.inbox)}{noticed}",
            f"           {two[0]}/ANY-NAME/left.jpg and right.jpg; {', '.join(two[1:])} alike",
            f"           {one[0]}/ANY-NAME.jpg; {', '.join(one[1:])} alike",
            f"Videos     appear in {_shown(self.settings.target)}",
            f"Provider   {'the sandbox, free: no key is set' if self.sandboxed else paid}",
        ]

    def _core(self) -> list[Effect]:
        return [effect for effect in load_catalogue(self.settings.catalogue).effects.values() if effect.core]


def _absolute(url: str) -> str:
    """The same place, wherever a process is."""
    try:
        storage = Storage(url)
    except StorageError as error:
        raise BadInput(error.reason) from None
    return storage.url_of("") if storage.local else url


def _shown(url: str) -> str:
    return os.path.relpath(url) if Storage(url).local else public_url(url)

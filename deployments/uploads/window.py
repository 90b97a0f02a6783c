"""What arrives close together is told together: two photos of one hug wake one run, a thousand wake a few."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments.uploads.arrival import Arrival

QUIET_S = 2.0
"""A window closes when nothing arrived for so long: more than the pause between two photos that are sent together."""

LONGEST_S = 8.0
"""It closes at the latest so long after its first arrival, however busy it is; senders over HTTP wait for that."""

FOLDERS_PER_EVENT = 100
"""Prefect accepts no more related resources than that in one event."""


@dataclass(frozen=True)
class Group:
    """What one event tells: everything that arrived for some jobs.

    Attributes:
        folders: the jobs' folders, each once, sorted.
        arrivals: what arrived in them.
    """

    folders: tuple[str, ...]
    arrivals: tuple[Arrival, ...]

    @property
    def title(self) -> str:
        """Its folder, or how many they are, as one line of a log."""
        folder = self.folders[0]
        if len(self.folders) > 1:
            return f"{len(self.folders)} folders"
        return folder if folder.isprintable() else repr(folder)

    @property
    def files(self) -> int:
        """How many files arrived; one that grew or was replaced meanwhile counts once."""
        return len({(arrival.bucket, arrival.key) for arrival in self.arrivals})

    @property
    def id(self) -> uuid.UUID:
        """Derived from what it tells, so that the same arrivals make the same event, in whatever order they came."""
        ids = sorted(str(arrival.id) for arrival in self.arrivals)
        return uuid.UUID(ids[0]) if len(ids) == 1 else uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(ids))


@dataclass
class Window:
    """Gathers arrivals until it is time to tell of them. It looks at no clock: who adds says when.

    Attributes:
        quiet_s: seconds without an arrival after which it closes.
        longest_s: seconds after the first arrival at which it closes at the latest.
    """

    quiet_s: float = QUIET_S
    longest_s: float = LONGEST_S
    _first: float = field(default=0.0, init=False)
    _last: float = field(default=0.0, init=False)
    _folders: dict[str, list[Arrival]] = field(default_factory=dict, init=False)

    def add(self, folder: str, arrival: Arrival, at: float) -> None:
        """Gather what arrived for a job in the second `at`; the first arrival opens the window."""
        if not self._folders:
            self._first = at
        self._last = at
        self._folders.setdefault(folder, []).append(arrival)

    def closes_at(self) -> float | None:
        """The second in which it is to be closed; None while it holds nothing."""
        if not self._folders:
            return None
        return min(self._last + self.quiet_s, self._first + self.longest_s)

    def close(self) -> tuple[Group, ...]:
        """Everything gathered, in as few groups as may be; what arrived for one job is never in two of them."""
        gathered, self._folders = self._folders, {}
        return tuple(
            Group(folders, tuple(arrival for folder in folders for arrival in gathered[folder]))
            for folders in _some_at_a_time(sorted(gathered))
        )


def _some_at_a_time(folders: list[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(folders), FOLDERS_PER_EVENT):
        yield tuple(folders[start : start + FOLDERS_PER_EVENT])

"""Uploads that come close together are told together: two photos of one hug wake one run, a thousand wake a few."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from deployments.uploads.upload import Upload

QUIET_S = 2.0
"""A window closes when nothing came for so long: about the pause between two photos of one person uploading."""

LONGEST_S = 8.0
"""It closes at the latest so long after its first upload, however busy it is; senders over HTTP wait for that."""

FOLDERS_PER_EVENT = 100
"""Prefect accepts no more related resources than that in one event."""


@dataclass(frozen=True)
class Group:
    """What one event tells: every upload of some jobs.

    Attributes:
        folders: the jobs' folders, each once, sorted.
        uploads: what came for them.
    """

    folders: tuple[str, ...]
    uploads: tuple[Upload, ...]

    @property
    def id(self) -> uuid.UUID:
        """Derived from what it tells, so that the same uploads make the same event, in whatever order they came."""
        ids = sorted(str(upload.id) for upload in self.uploads)
        return uuid.UUID(ids[0]) if len(ids) == 1 else uuid.uuid5(uuid.NAMESPACE_URL, "\n".join(ids))


@dataclass
class Window:
    """Gathers uploads until it is time to tell of them. It looks at no clock: who adds says when.

    Attributes:
        quiet_s: seconds without an upload after which it closes.
        longest_s: seconds after the first upload at which it closes at the latest.
    """

    quiet_s: float = QUIET_S
    longest_s: float = LONGEST_S
    _first: float = field(default=0.0, init=False)
    _last: float = field(default=0.0, init=False)
    _folders: dict[str, list[Upload]] = field(default_factory=dict, init=False)

    def add(self, folder: str, upload: Upload, at: float) -> None:
        """Gather an upload of a job that came `at` that second; the first one opens the window."""
        if not self._folders:
            self._first = at
        self._last = at
        self._folders.setdefault(folder, []).append(upload)

    def closes_at(self) -> float | None:
        """The second at which it is time to close it; None while it holds nothing."""
        if not self._folders:
            return None
        return min(self._last + self.quiet_s, self._first + self.longest_s)

    def close(self) -> tuple[Group, ...]:
        """Everything gathered, in as few groups as may be; a job's uploads are never in two of them."""
        gathered, self._folders = self._folders, {}
        return tuple(
            Group(folders, tuple(upload for folder in folders for upload in gathered[folder]))
            for folders in _some_at_a_time(sorted(gathered))
        )


def _some_at_a_time(folders: list[str]) -> Iterator[tuple[str, ...]]:
    for start in range(0, len(folders), FOLDERS_PER_EVENT):
        yield tuple(folders[start : start + FOLDERS_PER_EVENT])

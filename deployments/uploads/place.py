"""The inbox as notifications name it: a bucket and a prefix in it; and which upload a file is a part of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.errors import BadInput
from tasks.jobs import public_url
from tasks.listing import is_passed_over

LOCAL = frozenset({"", "file", "local"})

LONGEST_FOLDER = 1024
"""Bytes. Stores allow no longer keys, and an event with the most folders stays far below what Prefect accepts."""


@dataclass(frozen=True)
class Place:
    """Where the inbox lies.

    Attributes:
        url: as the flows get it; a local one as an absolute path.
        bucket: the bucket or container; of a local inbox, its absolute path.
        prefix: of the keys in the bucket that concern it; empty, or with `/` at its end.
        local: whether it is a folder of this machine.
    """

    url: str
    bucket: str
    prefix: str
    local: bool

    @classmethod
    def of(cls, inbox: str) -> Place:
        """Read the inbox's URL.

        Raises:
            BadInput: it names no bucket, or carries a password.
        """
        scheme, _, rest = inbox.rpartition("://")
        if scheme in LOCAL:
            path = str(Path(rest).expanduser().absolute())
            return cls(path, path, "", local=True)
        host, _, path = rest.partition("/")
        user, at, _ = host.rpartition("@")  # abfs://container@account.dfs.core.windows.net/…
        if ":" in user:
            raise BadInput(f"the inbox {public_url(inbox)} carries a password: everybody could read it in the events")
        bucket, prefix = user if at else host, path.strip("/")
        if not bucket:
            raise BadInput(f"the inbox {public_url(inbox)} names no bucket")
        return cls(inbox.rstrip("/"), bucket, f"{prefix}/" if prefix else "", local=False)

    def folder_of(self, bucket: str, key: str) -> str | None:
        """The upload that a file is a part of, relative to the inbox: `<effect>/<name>` or `<effect>/<file>`.

        None where it is nobody's photo: elsewhere, hidden, left behind, not whole, or a folder. A file that lies in no
        effect's folder stands for itself: the flow says what is wrong with it.
        """
        if bucket != self.bucket or not key.startswith(self.prefix) or "\0" in key:
            return None
        parts = key[len(self.prefix) :].split("/")
        if not all(parts) or any(is_passed_over(part) for part in parts):
            return None
        folder = "/".join(parts[:2])
        return folder if len(folder.encode()) <= LONGEST_FOLDER else None

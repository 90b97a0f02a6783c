"""The inbox as notifications name it: a bucket and what lies under a prefix in it; and which job a file belongs to."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import BadInput
from tasks.jobs import public_url

LOCAL = frozenset({"", "file", "local"})

PARTIAL = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".filepart", ".swp", "~")
"""How browsers, copiers and editors name what is not whole yet; the whole file comes under another name."""

LITTER = frozenset({"thumbs.db", "desktop.ini"})
"""What systems leave in folders on their own. Their other files begin with a dot."""

NOTE = "job.json"

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
            BadInput: it names no bucket.
        """
        scheme, _, rest = inbox.rpartition("://")
        if scheme in LOCAL:
            path = str(Path(rest).expanduser().absolute())
            return cls(path, path, "", local=True)
        host, _, path = rest.partition("/")
        bucket, at, _ = host.rpartition("@") if "@" in host else (host, "", "")
        if at and ":" in bucket:
            raise BadInput(f"the inbox {public_url(inbox)} carries a password: it would be read in every event")
        if not bucket:
            raise BadInput(f"the inbox {public_url(inbox)} names no bucket")
        prefix = path.strip("/")
        return cls(inbox.rstrip("/"), bucket, f"{prefix}/" if prefix else "", local=False)

    def folder_of(self, bucket: str, key: str) -> str | None:
        """The job that a file belongs to, relative to the inbox: `<effect>/<name>`, or `<effect>/<file>`.

        None where the file is no part of a job: elsewhere, hidden, not whole, or a folder.
        """
        if bucket != self.bucket or not key.startswith(self.prefix):
            return None
        parts = key[len(self.prefix) :].split("/")
        name = parts[-1].lower()
        if not all(parts) or any(part.startswith(".") for part in parts) or name in LITTER or name.endswith(PARTIAL):
            return None
        if len(parts) < 2 or parts[1] == NOTE:  # noqa: PLR2004 - an effect, and something in it
            return None
        folder = posixpath.join(*parts[:2])
        return folder if len(folder.encode()) <= LONGEST_FOLDER else None

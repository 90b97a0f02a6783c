"""One file that arrived in the inbox, as every source tells it."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "effects.upload")


@dataclass(frozen=True)
class Arrival:
    """A file that was put into a store: a part of an upload, or all of it.

    Attributes:
        source: who told of it: `s3`, `gcs`, `azure` or `folder`.
        bucket: the bucket or container; of a local inbox, its absolute path.
        key: its full name in there, decoded, with `/`.
        version: differs each time something is put under the same key, and is the same however often that is told.
    """

    source: str
    bucket: str
    key: str
    version: str

    @property
    def id(self) -> uuid.UUID:
        """Derived from bucket, key and version: a repeat has the same id, whichever way it comes."""
        return uuid.uuid5(NAMESPACE, json.dumps([self.bucket, self.key, self.version]))

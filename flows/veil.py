"""Signed links on their way into a flow run: Prefect stores a run's parameters, and shows them to everyone."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tasks.jobs import public_url

if TYPE_CHECKING:
    from collections.abc import Sequence

_veiled: dict[str, str] = {}


def veil(images: Sequence[str]) -> list[str]:
    """The images as a flow run's parameters may name them.

    A URL that holds a signature or credentials stays in this process, and its public part goes in its place; only a
    flow run in this process can make something of it.
    """
    shown = []
    for url in images:
        public = public_url(url)
        if public != url:
            public += f"#{hashlib.sha256(url.encode()).hexdigest()[:8]}"
            _veiled[public] = url
        shown.append(public)
    return shown


def unveiled(images: Sequence[str]) -> tuple[str, ...]:
    """The images as they were handed to `veil` in this process; others as they are."""
    return tuple(_veiled.get(url, url) for url in images)

"""Short pauses: tests are about the order of things, not about the length of the pauses between them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

PAUSES = {
    "submit.SEND_PAUSES_S": (0.05,),
    "submit.NEIGHBOUR_LOOK_S": 0.05,
    "reconcile.RECONCILE_PAUSES_S": (0.0, 0.1),
    "reconcile.NEIGHBOUR_LOOK_S": 0.05,
    "reconcile.NEIGHBOUR_S": 0.3,
    "ledger.KEEP_PAUSES_S": (0.05, 0.05),
}


def shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever submits or resumes in this process waits for next to nothing."""
    for name, value in PAUSES.items():
        monkeypatch.setattr(f"tasks.{name}", value)

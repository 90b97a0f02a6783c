"""Tables of the crash suite are shown at the end of the run, whether or not it passed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

TABLES = pytest.StashKey[list[str]]()


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Have a table shown at the end of the run."""
    tables = request.config.stash.setdefault(TABLES, [])
    return tables.append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the tables."""
    for table in terminalreporter.config.stash.get(TABLES, []):
        terminalreporter.write_line("")
        terminalreporter.write_line(table)

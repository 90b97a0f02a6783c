"""One writer at a time: a Prefect server on SQLite whose transactions wait for their turn when they begin.

Prefect begins its transactions as readers. One that comes to write when another has written since fails at once,
"database is locked", however long SQLite would be allowed to wait; and Prefect's server then answers 503, for which its
clients wait for two seconds and more, or evaluates an event anew after it has acted upon it: automations fire
twice, or, after some more tries, never. Taking the turn first, nothing fails, and everything comes to its turn.
"""

from __future__ import annotations

from functools import partialmethod

from prefect.server.database.configurations import AioSqliteConfiguration


def take_turns() -> None:
    """From here on in this process; other databases are not concerned."""
    begin = AioSqliteConfiguration.begin_transaction
    AioSqliteConfiguration.begin_transaction = partialmethod(begin, with_for_update=True)  # type: ignore[method-assign, assignment]

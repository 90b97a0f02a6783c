"""One writer at a time: a Prefect server on SQLite whose transactions wait for their turn when they begin.

Prefect begins its transactions as readers. One that comes to write when another has written since fails at once,
"database is locked", however long SQLite would be allowed to wait; and Prefect's server then answers 503, for which its
clients wait for two seconds and more, or evaluates an event anew after it has acted upon it: automations fire
twice, or, after some more tries, never. Taking the turn first, nothing fails, and everything comes to its turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect.server.database.configurations import AioSqliteConfiguration

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

    Transaction = AbstractAsyncContextManager[AsyncSessionTransaction]


def take_turns() -> None:
    """From here on in this process; other databases are not concerned."""
    begin = AioSqliteConfiguration.begin_transaction

    def in_turn(
        self: AioSqliteConfiguration,
        session: AsyncSession,
        with_for_update: bool = False,  # noqa: ARG001 - whatever is asked for
    ) -> Transaction:
        return begin(self, session, with_for_update=True)

    AioSqliteConfiguration.begin_transaction = in_turn  # type: ignore[method-assign, assignment]

"""A Prefect server's transactions on SQLite: with many at once, each comes to its turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy.exc import OperationalError

from deployments.turns import take_turns

if TYPE_CHECKING:
    from pathlib import Path

WRITERS = 5


async def _write_at_once(folder: Path) -> int:
    """So many transactions that read a number, and write it back one higher; returns the number afterwards."""
    database = AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{folder}/numbers.db")
    engine = await database.engine()

    async def write() -> None:
        session = await database.session(engine)
        async with session, database.begin_transaction(session, with_for_update=False):
            number = await session.scalar(sa.text("SELECT number FROM numbers"))
            await asyncio.sleep(0.02)
            await session.execute(sa.text("UPDATE numbers SET number = :number"), {"number": (number or 0) + 1})

    async with await database.session(engine) as session, database.begin_transaction(session):
        await session.execute(sa.text("CREATE TABLE numbers (number INTEGER)"))
        await session.execute(sa.text("INSERT INTO numbers VALUES (0)"))
    try:
        await asyncio.gather(*(write() for _ in range(WRITERS)))
        async with await database.session(engine) as session:
            return int(await session.scalar(sa.text("SELECT number FROM numbers")) or 0)
    finally:
        await engine.dispose()


async def test_writers_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect by itself gives up where two overlap: "database is locked". With turns, none fails, and none is lost."""
    original = AioSqliteConfiguration.begin_transaction
    (tmp_path / "prefect").mkdir()
    with pytest.raises(OperationalError, match="locked"):
        await _write_at_once(tmp_path / "prefect")
    monkeypatch.setattr(AioSqliteConfiguration, "begin_transaction", original)  # put back afterwards
    take_turns()
    assert await _write_at_once(tmp_path) == WRITERS

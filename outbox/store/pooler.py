"""Postgres behind a transaction pooler (pgbouncer), where a session lasts for one transaction.

There a setting, a role, a prepared statement or an advisory lock of a session would be left on a
connection to Postgres that others use next. So behind one, nothing is prepared (poolers below
pgbouncer 1.21 mix prepared statements up, and cannot be asked for their version), and what a
statement needs is set in its own transaction.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

CANCEL_S_MAX = 1.0
"""Who cannot be reached by then hangs, or is gone."""


async def is_pooled(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Tell whether something between us and Postgres answers for it.

    A pooler makes up the process id that it tells its clients; Postgres tells its own.
    """
    cursor = await connection.execute("select pg_backend_pid()", prepare=False)
    row = await cursor.fetchone()
    assert row is not None
    return bool(row[0] != connection.info.backend_pid)


async def prepare_only_where_it_lasts(connection: psycopg.AsyncConnection[Any]) -> None:
    """Switch prepared statements off behind a pooler."""
    if await is_pooled(connection):
        connection.prepare_threshold = None


class SettledConnection(psycopg.AsyncConnection[TupleRow]):
    """In autocommit mode, with settings that hold for all that it runs, pooled or not."""

    pooled = False
    _settle: sql.Composed

    async def cancel_safe(self, *, timeout: float = CANCEL_S_MAX) -> None:
        """Ask the server to cancel what runs. A task that is cancelled waits for this."""
        await super().cancel_safe(timeout=min(timeout, CANCEL_S_MAX))

    async def settle(self, **settings: str) -> None:
        """Have `settings` from here on: for the session, or in each transaction of it."""
        self.pooled = await is_pooled(self)
        values = sql.SQL(", ").join(
            sql.SQL("set_config({}, {}, {})").format(name, value, self.pooled)
            for name, value in settings.items()
        )
        self._settle = sql.SQL("select ") + values
        if self.pooled:
            self.prepare_threshold = None
            self.cursor_factory = _SettledCursor
        else:
            await self.execute(self._settle)

    @asynccontextmanager
    async def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> AsyncIterator[psycopg.AsyncTransaction]:
        """Run a transaction, under the settings."""
        async with super().transaction(savepoint_name, force_rollback) as transaction:
            if self.pooled:
                await self.execute(self._settle)
            yield transaction


class _SettledCursor(psycopg.AsyncCursor[TupleRow]):
    """Runs each statement in a transaction, whose settings come first."""

    # psycopg's signature is a set of overloads over every kind of query.
    async def execute(self, query: Any, *args: Any, **options: Any) -> Self:
        connection = self.connection
        if connection.info.transaction_status != TransactionStatus.IDLE:
            return await super().execute(query, *args, **options)
        async with connection.transaction():
            return await super().execute(query, *args, **options)

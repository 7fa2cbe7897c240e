"""Partitions ahead and retention behind (07_retention.sql): one bounded step a call.

Every function takes a connection in autocommit mode. `now` stands in for the database's clock.
Those that need a lock that others hold raise psycopg's LockNotAvailable, and have done nothing.
"""

from __future__ import annotations

from datetime import date, datetime

from outbox.store.engine import Connection
from outbox_sql import query

STEP_ROWS = 1_000


async def make_partitions(connection: Connection, *, now: datetime | None = None) -> int:
    """Make the partitions of the days ahead that are missing; return how many."""
    made = await _value(connection, "select outbox.make_partitions(now => %s)", now)
    return int(str(made))


async def retire_day(connection: Connection, *, now: datetime | None = None) -> date | None:
    """Take the oldest day that is over age out of the way; None: there is none."""
    day = await _value(connection, "select outbox.retire_day(%s)", now)
    assert day is None or isinstance(day, date)
    return day


async def prune_retired(connection: Connection, *, rows: int = STEP_ROWS) -> int | None:
    """Delete what belongs to the next jobs of a retired day; None: nothing is left to do."""
    pruned = await _value(connection, "select outbox.prune_retired(%s)", rows)
    return None if pruned is None else int(str(pruned))


async def prune_aged(
    connection: Connection, *, rows: int = STEP_ROWS, now: datetime | None = None
) -> int:
    """Delete the oldest of what is kept by its own age; return how many rows."""
    return int(str(await _value(connection, "select outbox.prune_aged(%s, %s)", rows, now)))


async def prune_lanes(connection: Connection, *, rows: int = STEP_ROWS) -> int:
    """Delete narrow lanes that nothing waits in any more; return how many."""
    return int(str(await _value(connection, "select outbox.prune_lanes(%s)", rows)))


async def prune_progress(connection: Connection) -> int:
    """Delete the progress of attempts whose process is gone; return how many."""
    return (await connection.execute(query("progress_prune"))).rowcount


async def analyze_parents(connection: Connection, *, now: datetime | None = None) -> list[str]:
    """ANALYZE the partitioned tables that need it; return which."""
    done = await _value(connection, "select outbox.analyze_parents(%s)", now)
    assert isinstance(done, list)
    return done


async def _value(connection: Connection, statement: str, *parameters: object) -> object:
    cursor = await connection.execute(statement.encode(), parameters)
    row = await cursor.fetchone()
    assert row is not None
    return row[0]

"""What benchmarks ask of the store they measure: fill it, pause it, let it go, look at it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import LiteralString

import psycopg

from outbox_bench.arena import Connection, Place
from outbox_bench.noop import QUEUE

FILL_JOBS = 5_000
POLL_S = 0.01
DRAIN_S_MAX = 900.0

INSPECTOR = "select from pg_available_extensions where name = 'pg_walinspect'"
FILL = """
select count(*) from outbox.enqueue_many_v1(array(
    select jsonb_build_object('queue', %s::text, 'payload',
                              jsonb_build_object('n', n, 'text', repeat('x', 400)))
    from generate_series(1, %s) as n))"""


def fill_noop(place: Place, jobs: int) -> None:
    """Have `jobs` no-op jobs wait in a paused queue."""
    with place.connect() as connection:
        handle(connection, QUEUE)
        pause(connection, QUEUE)
        for start in range(0, jobs, FILL_JOBS):
            connection.execute(FILL, (QUEUE, min(FILL_JOBS, jobs - start)))
        settle(connection)


def handle(connection: Connection, queue: str) -> None:
    """Note a queue's handler as installed, so that its jobs are accepted."""
    connection.execute(
        "insert into outbox.handler (kind, name) values ('queue', %s) on conflict do nothing",
        (queue,),
    )


def settle(connection: Connection) -> None:
    """Leave nothing to autovacuum that would run into a measurement."""
    connection.execute("vacuum analyze")
    connection.execute("checkpoint")


def pause(connection: Connection, queue: str) -> None:
    """Let dispatchers start nothing of the queue."""
    connection.execute("select outbox.set_paused(%s, null, true, 'bench')", (queue,))


def resume(connection: Connection, queue: str) -> float:
    """Let a queue go; return when (monotonic seconds)."""
    connection.execute("select outbox.set_paused(%s, null, false, 'bench')", (queue,))
    return time.monotonic()


def until_empty(connection: Connection) -> float:
    """Wait until no entry is left; return when (monotonic seconds). Raises TimeoutError.

    It looks at the newest entry, whose place in the index stays alive until the end.
    """
    until_none(connection, "select id from outbox.entry order by id desc limit 1")
    return time.monotonic()


def until_none(connection: Connection, statement: LiteralString) -> None:
    """Wait until a statement finds nothing. Raises TimeoutError."""
    deadline = time.monotonic() + DRAIN_S_MAX
    while connection.execute(statement).fetchall():
        if time.monotonic() > deadline:
            raise TimeoutError(f"there is still something after {DRAIN_S_MAX:g} s: {statement}")
        time.sleep(POLL_S)


@dataclass(frozen=True)
class Wal:
    """WAL between two looks at it. Full-page images depend on how near a checkpoint was."""

    record_bytes: float
    image_bytes: float | None


def wal_lsn(connection: Connection) -> str:
    """Return where the WAL ends now."""
    return str(_one(connection, "select pg_current_wal_insert_lsn()"))


def wal_since(connection: Connection, lsn: str) -> Wal:
    """Return what was written since `lsn`, by all databases."""
    all_bytes = float(str(_one(connection, "select pg_current_wal_lsn() - %s::pg_lsn", lsn)))
    if not _one(connection, f"select exists ({INSPECTOR})"):
        return Wal(all_bytes, None)
    connection.execute("create extension if not exists pg_walinspect")
    try:
        row = connection.execute(
            "select sum(record_size)::float8, sum(fpi_size)::float8"
            " from pg_get_wal_stats(%s::pg_lsn, pg_current_wal_flush_lsn())",
            (lsn,),
        ).fetchone()
    except psycopg.errors.UndefinedFile:  # a checkpoint has removed what was written first
        return Wal(all_bytes, None)
    assert row is not None
    return Wal(float(str(row[0])), float(str(row[1])))


def _one(connection: Connection, statement: str, *parameters: object) -> object:
    row = connection.execute(statement.encode(), parameters).fetchone()
    assert row is not None
    return row[0]

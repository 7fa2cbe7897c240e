"""Queues: their figures, pause and resume, and how the whole store is."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic

import msgspec
import psycopg

from outbox.errors import QueuePaused
from outbox.store.pool import Connection, fetch, fetch_one
from outbox_sql import query

LOOK_MS_MAX = 2_000
TRY_AGAIN_S = 20 * LOOK_MS_MAX / 1_000
"""A look that was given up is tried again so much later: a twentieth of the time at most."""

_given_up: dict[tuple[str, int, str], float] = {}
"""Databases that are not looked at in full, and until when (monotonic)."""


class QueueRow(msgspec.Struct, frozen=True, kw_only=True):
    """A queue's figures; see queue_stats.sql. `durations` is a histogram (outbox.telemetry).

    `estimated`: which of `waiting`, `active`, `delayed` and `oldest_waiting_s` are no exact ones.
    """

    queue: str
    waiting: int
    active: int
    delayed: int
    estimated: list[str]
    oldest_waiting_s: float | None
    completed: int
    failed: int
    expired: int
    attempts: int
    duration_ms_sum: int
    durations: list[int]
    total_completed: int
    total_failed: int
    total_expired: int
    total_cancelled: int
    total_rescued: int
    paused: bool
    held: int
    dispatchers: int


class StoreGauges(msgspec.Struct, frozen=True, kw_only=True):
    """How the store is beside its queues. `held`, `dead_letters` and `alerts` are JSON lists."""

    dispatchers: int
    held: str
    dead_letters: str
    late_outcomes: int
    snapshot_age_s: float
    destinations_paused: int
    destinations_broken: int
    partition_days_left: int
    alerts: str


class AttemptRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a queue's attempts came to; see attempt_stats.sql.

    `durations` and `pickups` are histograms (outbox.telemetry), `attempts` is a JSON list of
    provider, outcome, error class and how many.
    """

    queue: str
    duration_ms_sum: int
    pickup_ms_sum: int
    durations: list[int]
    pickups: list[int]
    attempts: str


async def stats(
    connection: Connection, *, tenant: str | None, queue: str | None = None
) -> list[QueueRow]:
    """Return the figures of all queues that are known, or of one.

    What can't be looked at within LOOK_MS_MAX, because an old snapshot keeps millions of dead rows
    in front of those that live, is estimated.
    """
    info = connection.info
    database = (info.host, info.port, info.dbname)
    found: list[QueueRow] = []
    if _given_up.get(database, 0.0) <= monotonic():
        try:
            async with connection.transaction() as limited:
                limit = "select set_config('statement_timeout', %s, true)"
                await connection.execute(limit, (str(LOOK_MS_MAX),))
                found = await look(connection, tenant=tenant, queue=queue, walk=True)
                raise psycopg.Rollback(limited)  # the caller's own limit holds again
        except psycopg.errors.QueryCanceled:
            _given_up[database] = monotonic() + TRY_AGAIN_S
        else:
            return found
    return await look(connection, tenant=tenant, queue=queue, walk=False)


async def look(
    connection: Connection, *, tenant: str | None, queue: str | None = None, walk: bool
) -> list[QueueRow]:
    """Return the figures; without `walk` as estimates, at a cost that is bounded."""
    parameters = {"tenant": tenant, "queue": queue, "walk": walk}
    return await fetch(connection, QueueRow, "queue_stats", parameters, prepare=False)


async def names(
    connection: Connection, *, tenant: str | None, queue: str | None = None
) -> list[str]:
    """Return the queues that are known, or that one where it is: what `stats` has figures of."""
    parameters = {"tenant": tenant, "queue": queue}
    cursor = await connection.execute(query("queue_names"), parameters, prepare=False)
    return [str(row[0]) for row in await cursor.fetchall()]


async def is_known(connection: Connection, queue: str) -> bool:
    """Tell whether there is such a queue: it has a handler, or has had a job."""
    return bool(await _number(connection, "queue_known", {"queue": queue}))


async def gauges(connection: Connection) -> StoreGauges:
    """Return how the whole store is."""
    row = await fetch_one(connection, StoreGauges, "store_gauges", {})
    assert row is not None
    return row


async def attempts(connection: Connection) -> list[AttemptRow]:
    """Return what the attempts of each queue came to since counting began."""
    return await fetch(connection, AttemptRow, "attempt_stats", {}, prepare=False)


async def set_paused(
    connection: Connection,
    queue: str,
    *,
    tenant: str | None,
    paused: bool,
    actor: str,
    reason: str | None = None,
) -> int:
    """Pause or resume; return the version that dispatchers must have seen for it to hold.

    Raises QueuePaused for a lane that is to go on while its whole queue is paused.
    """
    parameters = {"queue": queue, "tenant": tenant, "paused": paused, "actor": actor}
    parameters["reason"] = reason
    try:
        return await _number(connection, "queue_pause", parameters)
    except psycopg.Error as error:
        if error.sqlstate == "OBX04":
            raise QueuePaused(error.diag.message_primary) from error
        raise


async def unseen_by(connection: Connection, version: int) -> int:
    """Return how many live dispatchers have not seen that version yet."""
    return await _number(connection, "queue_unseen", {"version": version})


async def clean(
    connection: Connection,
    queue: str,
    *,
    tenant: str | None,
    status: str,
    older_than_s: float,
    limit: int,
    actor: str,
    keep_last: int | None = None,
) -> int:
    """Delete ended jobs with their history and keys, oldest first; return how many.

    `keep_last`: so many of the newest of that status stay, however old they are.
    """
    parameters = {
        "queue": queue,
        "tenant": tenant,
        "status": status,
        "older_than_s": older_than_s,
        "limit": limit,
        "actor": actor,
        "keep_last": keep_last,
    }
    return await _number(connection, "queue_clean", parameters)


async def session_secret(connection: Connection) -> bytes:
    """Return the database's own secret, which dashboard sessions are derived from."""
    cursor = await connection.execute(query("session_secret"))
    row = await cursor.fetchone()
    assert row is not None
    return bytes(row[0])


async def _number(connection: Connection, name: str, parameters: Mapping[str, object]) -> int:
    cursor = await connection.execute(query(name), parameters)
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])

"""Queues: their figures, pause and resume, and how the whole store is."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from outbox.store.pool import Connection, fetch, fetch_one
from outbox_sql import query


class QueueRow(msgspec.Struct, frozen=True, kw_only=True):
    """A queue's figures; see queue_stats.sql. `durations` is a histogram (outbox.telemetry)."""

    queue: str
    waiting: int
    active: int
    delayed: int
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
    """Return the figures of all queues that are known, or of one."""
    parameters = {"tenant": tenant, "queue": queue}
    return await fetch(connection, QueueRow, "queue_stats", parameters, prepare=False)


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
    """Pause or resume; return the version that dispatchers must have seen for it to hold."""
    parameters = {"queue": queue, "tenant": tenant, "paused": paused, "actor": actor}
    parameters["reason"] = reason
    return await _number(connection, "queue_pause", parameters)


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

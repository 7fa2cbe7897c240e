"""What whoever runs it looks at: counts over time, lanes, dispatchers, who did what.

Every function runs on a connection of `Database.transaction`. `tenant` None means all tenants.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from outbox.store.pool import Connection, fetch


class SeriesRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was done in one step of time. `durations`, `pickups` as in outbox.telemetry."""

    at: datetime
    sent: int
    failed: int
    retrying: int
    durations: list[int]
    pickups: list[int]


class SparkRow(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs a queue sent in one step of time."""

    queue: str
    at: datetime
    sent: int


class LaneRow(msgspec.Struct, frozen=True, kw_only=True):
    """A lane with its limits and its load.

    `waiting` is counted up to 10,000, `active` among the first 1,000 of each priority.
    """

    lane_id: int
    tenant_id: str
    queue: str
    scope: str
    weight: int
    concurrency_max: int | None
    rate_per_s: float | None
    burst: int | None
    paused_at: datetime | None
    paused_by: str | None
    held_at: datetime | None
    hold_code: str | None
    hold_reason: str | None
    probe_at: datetime | None
    waiting: int
    active: int


class DispatcherRow(msgspec.Struct, frozen=True, kw_only=True):
    """A dispatcher process that lives, or has fallen silent lately. `queues` None: all."""

    name: str
    version: str
    pid: int
    queues: list[str] | None
    started_at: datetime
    heartbeat_at: datetime
    alive: bool


class ActionRow(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator did. `detail` is JSON text."""

    action_id: int
    at: datetime
    actor: str
    action: str
    tenant_id: str
    id: int | None
    detail: str
    job_id: UUID | None


class DeadGroup(msgspec.Struct, frozen=True, kw_only=True):
    """Dead letters of one error: `counts[i]` of them fell into step `steps[i]` of 24."""

    queue: str | None
    reason: str
    error_class: str | None
    error_code: str | None
    n: int
    first_at: datetime
    last_at: datetime
    example: str
    steps: list[int]
    counts: list[int]


async def series(
    connection: Connection,
    *,
    tenant: str | None,
    since: datetime,
    step_s: float,
    queue: str | None = None,
) -> list[SeriesRow]:
    """Return what was done since then, by step, oldest first; of one queue or all together."""
    parameters = {"tenant": tenant, "queue": queue, "since": since, "step_s": step_s}
    return await fetch(connection, SeriesRow, "stat_series", parameters, prepare=False)


async def sparks(
    connection: Connection,
    *,
    tenant: str | None,
    since: datetime,
    step_s: float,
    queue: str | None = None,
) -> list[SparkRow]:
    """Return how many jobs each queue sent, by step, since then; of the last 20 minutes."""
    parameters = {"tenant": tenant, "queue": queue, "since": since, "step_s": step_s}
    return await fetch(connection, SparkRow, "stat_sparks", parameters, prepare=False)


async def lanes(
    connection: Connection, queue: str, *, tenant: str | None, limit: int
) -> list[LaneRow]:
    """Return up to `limit` lanes of a queue, those that stand still first."""
    parameters = {"queue": queue, "tenant": tenant, "limit": limit}
    return await fetch(connection, LaneRow, "lane_list", parameters, prepare=False)


async def dispatchers(connection: Connection) -> list[DispatcherRow]:
    """Return the dispatchers that live, and those that did within the hour."""
    return await fetch(connection, DispatcherRow, "dispatcher_list", {})


async def actions(
    connection: Connection,
    *,
    tenant: str | None,
    actor: str | None,
    action: str | None,
    before: int | None,
    limit: int,
    refused: bool | None = None,
) -> list[ActionRow]:
    """Return up to `limit` actions numbered below `before`, newest first."""
    parameters = {
        "tenant": tenant,
        "actor": actor,
        "action": action,
        "refused": refused,
        "before": before,
        "limit": limit,
    }
    return await fetch(connection, ActionRow, "operator_log", parameters, prepare=False)


class AttemptsRow(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider's attempts came to in the last quarter of an hour."""

    queue: str
    provider: str | None
    outcome: str | None
    error_class: str | None
    n: int


async def held_lanes(connection: Connection, *, tenant: str | None) -> list[LaneRow]:
    """Return the lanes that are held, over all queues."""
    return await fetch(connection, LaneRow, "lane_held_list", {"tenant": tenant}, prepare=False)


async def provider_attempts(connection: Connection, *, tenant: str | None) -> list[AttemptsRow]:
    """Return what providers' attempts came to lately."""
    parameters = {"tenant": tenant}
    return await fetch(connection, AttemptsRow, "provider_attempts", parameters, prepare=False)


async def dead_groups(
    connection: Connection, *, tenant: str | None, queue: str | None, since: datetime
) -> list[DeadGroup]:
    """Return what has failed since then and was not replayed, by error, the most first."""
    parameters = {"tenant": tenant, "queue": queue, "since": since}
    return await fetch(connection, DeadGroup, "dead_letter_groups", parameters, prepare=False)

"""Replays of many dead letters: planned, begun, watched, stopped (07_replays.sql)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from outbox.store.pool import Connection, fetch, fetch_one

State = Literal["running", "done", "stopped"]


class ReplayFilter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which dead letters; what is left out is any. `since` and `until` bound the failure."""

    queue: str | None = None
    reason: str | None = None
    error_class: str | None = None
    error_code: str | None = None
    template_code: str | None = None
    campaign_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class ReplaySample(msgspec.Struct, frozen=True, kw_only=True):
    """One of the dead letters that fit, and what would become of it."""

    dead_letter_id: int
    verdict: Literal["would_send", "expired", "duplicate", "suppressed", "gone"]
    job_id: UUID | None
    queue: str | None
    template_code: str | None
    error_code: str | None
    failed_at: datetime


class ReplayPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay would do now.

    `matched` fit; the oldest `looked_at` of them were judged (`complete`: all). `duplicate`: was
    replayed, lives, or ended otherwise since. `suppressed`: its address or category is.
    `gone`: no job is left to send, or it never was one.
    """

    matched: int
    looked_at: int
    complete: bool
    would_send: int
    expired: int
    duplicate: int
    suppressed: int
    gone: int
    sample: list[ReplaySample] = []


class ReplayRun(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `replay_run`. `filter` and `plan` are JSON text; `dispatchers`: alive now."""

    run_id: UUID
    tenant_id: str
    filter: str
    rate_per_s: float | None
    jobs_max: int | None
    state: State
    plan: str
    replayed: int
    expired: int
    duplicate: int
    suppressed: int
    gone: int
    begun_at: datetime
    begun_by: str
    reason: str | None
    ended_at: datetime | None
    stopped_by: str | None
    dispatchers: int


def filter_json(wanted: ReplayFilter) -> str:
    """Return the filter as the store keeps it."""
    return msgspec.json.encode(wanted).decode()


async def plan(
    connection: Connection, wanted: ReplayFilter, *, tenant: str, jobs_max: int | None
) -> ReplayPlan:
    """Return what a replay would do now. `tenant` '*': everybody's dead letters."""
    cursor = await connection.execute(
        "select outbox.plan_replay(%s, %s::jsonb, %s)::text",
        (tenant, filter_json(wanted), jobs_max),
        prepare=False,
    )
    row = await cursor.fetchone()
    assert row is not None
    return msgspec.json.decode(row[0], type=ReplayPlan)


async def begin(
    connection: Connection,
    run_id: UUID,
    wanted: ReplayFilter,
    *,
    tenant: str,
    rate_per_s: float | None,
    jobs_max: int | None,
    planned: ReplayPlan,
    actor: str,
    reason: str | None,
) -> Literal["begun", "known", "other"]:
    """Begin a run; `known`: the same was begun before; `other`: with another order."""
    cursor = await connection.execute(
        "select outbox.begin_replay(%s, %s, %s::jsonb, %s, %s, %s::jsonb, %s, %s)",
        (
            run_id,
            tenant,
            filter_json(wanted),
            rate_per_s,
            jobs_max,
            msgspec.json.encode(planned).decode(),
            actor,
            reason,
        ),
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


async def stop(
    connection: Connection, run_id: UUID, *, actor: str
) -> Literal["stopped", "ended", "unknown"]:
    """Stop a run where it is; what was replayed stays so."""
    cursor = await connection.execute("select outbox.stop_replay(%s, %s)", (run_id, actor))
    row = await cursor.fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]


async def show(connection: Connection, run_id: UUID) -> ReplayRun | None:
    """Return a run and how far it has come."""
    return await fetch_one(connection, ReplayRun, "replay_show", {"run_id": run_id})


async def page(
    connection: Connection,
    *,
    tenant: str | None,
    state: str | None,
    before: tuple[datetime, UUID] | None,
    limit: int,
) -> list[ReplayRun]:
    """Return up to `limit` runs, newest first, begun before (when, id)."""
    at, run_id = before or (None, None)
    parameters = {"tenant": tenant, "state": state, "at": at, "run_id": run_id, "limit": limit}
    return await fetch(connection, ReplayRun, "replay_list", parameters, prepare=False)


async def step(connection: Connection) -> float | None:
    """Take one run a step further.

    Returns after how many seconds there is more; None: nothing runs, or others are at it.
    """
    cursor = await connection.execute("select outbox.step_replay()")
    row = await cursor.fetchone()
    assert row is not None
    return row[0]  # type: ignore[no-any-return]

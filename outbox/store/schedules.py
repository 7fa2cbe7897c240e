"""Schedules: kept by tenant and name, fired by dispatchers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Literal
from uuid import UUID, uuid5

import msgspec
from msgspec import Meta

from outbox.errors import Fault
from outbox.store import jobs
from outbox.store.pool import Connection, execute, fetch, fetch_one
from outbox.triggers import Misfire
from outbox_sql import query

OWN_FIELDS = ("job_id", "idempotency_key", "created_at", "send_after", "expires_at", "tenant_id")
"""What a fire decides about its job; a schedule's job must leave it out."""
SAMPLE_ID = UUID("b1f0c1de-0000-5000-8000-000000000000")


class ScheduleRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `schedule`. `trigger`, `job` and `clean` are JSON text."""

    schedule_id: UUID
    tenant_id: str
    name: str
    trigger: str
    timezone: str
    job: str | None
    clean: str | None
    expires_after_s: int | None
    misfire: Misfire
    misfire_grace_s: int
    enabled: bool
    next_at: datetime | None
    fired_at: datetime | None
    last_job_id: UUID | None
    last_error: str | None
    last_error_at: datetime | None
    fires: int
    missed: int
    created_at: datetime
    updated_at: datetime
    updated_by: str


class DueSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """A schedule whose time has come; `now` is the database's."""

    schedule_id: UUID
    tenant_id: str
    name: str
    trigger: str
    timezone: str
    job: str | None
    clean: str | None
    expires_after_s: int | None
    misfire: Misfire
    misfire_grace_s: int
    next_at: datetime
    now: datetime


class CleanJobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Ended jobs that a fire deletes: older than so long, but for the newest `keep_last`."""

    queue: Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
    status: Literal["sent", "failed", "expired", "cancelled"]
    older_than_s: Annotated[float, Meta(ge=0, le=315_360_000)] | None = None
    keep_last: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError where nothing says what stays: that would be a queue's whole past."""
        if self.older_than_s is None and self.keep_last is None:
            raise ValueError("must have keep_last, older_than_s, or both")


def fire_id(schedule_id: UUID, at: datetime) -> UUID:
    """Return the job_id of a fire: whoever fires it, it is the same."""
    return uuid5(schedule_id, at.isoformat())


def fire_job(
    job_json: str, *, name: str, job_id: UUID, at: datetime, expires_after_s: int | None
) -> dict[str, object]:
    """Return the job that a fire hands in. All of it follows from the schedule and the time."""
    job: dict[str, object] = msgspec.json.decode(job_json)
    meta = job.get("meta")
    job["meta"] = (meta if isinstance(meta, dict) else {}) | {"schedule": name, "fire_at": at}
    job["job_id"] = job_id
    job["created_at"] = at
    if expires_after_s is not None:
        job["expires_at"] = at + timedelta(seconds=expires_after_s)
    return job


async def check_job(
    connection: Connection, job: Mapping[str, object], *, tenant: str
) -> tuple[Fault, ...]:
    """Return why such a job would be refused now. Nothing is stored."""
    own = [Fault(f"/{n}", "is the schedule's to say") for n in OWN_FIELDS if n in job]
    if own:
        return tuple(own)
    text = msgspec.json.encode([{"meta": {}, **job, "job_id": SAMPLE_ID}]).decode()
    await connection.execute("savepoint checking")
    try:
        (result,) = await jobs.enqueue(connection, text, tenant=tenant, skip_bad=True)
    finally:
        await connection.execute("rollback to savepoint checking")
        await connection.execute("release savepoint checking")
    return result.faults


async def put(
    connection: Connection,
    *,
    tenant: str,
    name: str,
    trigger: str,
    timezone: str,
    job: str | None,
    clean: str | None,
    expires_after_s: int | None,
    misfire: Misfire,
    misfire_grace_s: int,
    next_at: datetime | None,
    actor: str,
) -> ScheduleRow:
    """Make a schedule, or change it whole."""
    parameters = {
        "tenant": tenant,
        "name": name,
        "trigger": trigger,
        "timezone": timezone,
        "job": job,
        "clean": clean,
        "expires_after_s": expires_after_s,
        "misfire": misfire,
        "misfire_grace_s": misfire_grace_s,
        "next_at": next_at,
        "actor": actor,
    }
    stored = await fetch_one(connection, ScheduleRow, "schedule_put", parameters)
    assert stored is not None
    return stored


async def page(
    connection: Connection,
    *,
    tenant: str | None,
    after: tuple[str, str] = ("", ""),
    limit: int,
    name: str | None = None,
) -> list[ScheduleRow]:
    """Return up to `limit` schedules after (tenant, name)."""
    parameters = {
        "tenant": tenant,
        "name": name,
        "after_tenant": after[0],
        "after_name": after[1],
        "limit": limit,
    }
    return await fetch(connection, ScheduleRow, "schedule_list", parameters, prepare=False)


async def show(connection: Connection, *, tenant: str, name: str) -> ScheduleRow | None:
    """Return one by its name."""
    rows = await page(connection, tenant=tenant, name=name, limit=1)
    return rows[0] if rows else None


async def enable(
    connection: Connection,
    *,
    tenant: str,
    name: str,
    enabled: bool,
    next_at: datetime | None,
    actor: str,
) -> ScheduleRow | None:
    """Pause a schedule, or let it go on with its next fire at `next_at`."""
    parameters = {
        "tenant": tenant,
        "name": name,
        "enabled": enabled,
        "next_at": next_at,
        "actor": actor,
    }
    return await fetch_one(connection, ScheduleRow, "schedule_enable", parameters)


async def delete(connection: Connection, *, tenant: str, name: str) -> bool:
    """Forget a schedule; False when there is none."""
    return await execute(connection, "schedule_delete", {"tenant": tenant, "name": name}) > 0


async def due(connection: Connection, *, limit: int) -> list[DueSchedule]:
    """Return schedules whose time has come, locked until the transaction ends."""
    return await fetch(connection, DueSchedule, "schedule_due", {"limit": limit})


async def hand_in(
    connection: Connection, fires: Sequence[Mapping[str, object]], *, tenant: str
) -> str | None:
    """Hand in the jobs of some fires; return what was refused, in words."""
    parameters = {"jobs": msgspec.json.encode(fires).decode(), "tenant": tenant}
    cursor = await connection.execute(query("schedule_enqueue"), parameters)
    refused = [
        str(row[2] or f"job {row[0]} was handed in with other content")
        for row in await cursor.fetchall()
        if row[1] in ("invalid", "conflict")
    ]
    return refused[0] if refused else None


async def fired(
    connection: Connection,
    schedule_id: UUID,
    *,
    next_at: datetime | None,
    fired_at: datetime | None,
    job_id: UUID | None,
    fires: int,
    missed: int,
    error: str | None,
) -> None:
    """Write down what a fire came to."""
    parameters = {
        "schedule_id": schedule_id,
        "next_at": next_at,
        "fired_at": fired_at,
        "job_id": job_id,
        "fires": fires,
        "missed": missed,
        "error": error,
    }
    await execute(connection, "schedule_fired", parameters)

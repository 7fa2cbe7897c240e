"""Schedules, fired by whichever dispatcher comes first: there is no leader.

A fire is one transaction: the schedule's row is locked, its jobs are handed in, its next time is
set. So it happens once however many dispatchers there are and whoever dies; and a job's id follows
from schedule and fire time, so even a clock of the database that was set back makes no second one.
The time is the database's; heartbeats tell when the next fire is. `--queues` and pauses don't
matter.
"""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import msgspec
import psycopg
import structlog

from outbox.store import queues, schedules
from outbox.store.engine import Connection
from outbox.store.schedules import CleanJobs, DueSchedule
from outbox.triggers import BadTrigger, Due, Timetable, Trigger
from outbox_dispatcher.life import Life
from outbox_dispatcher.links import open_link

LOOK_S = 0.1
SCHEDULES_MAX = 20
CLEAN_SLICE = 1_000
CLEAN_SLICES_MAX = 1_000
LATER_S = 3_600.0
"""What cannot be read any more (a zone that is gone) is looked at again then."""

log = structlog.get_logger(__name__)


async def fire_schedules(
    connection: Connection, lock: asyncio.Lock, *, life: Life, url: str
) -> None:
    """Fire what is due until cancelled. The connection is shared, one statement at a time."""
    async with asyncio.TaskGroup() as cleaning:
        while True:
            at = life.next_fire
            if at is None or at > life.db_now():
                await asyncio.sleep(LOOK_S)
                continue
            async with lock:
                orders, more = await fire_due(connection)
            for order in orders:
                cleaning.create_task(_clean(url, order))
            if not more:
                # Until the next heartbeat has looked.
                life.next_fire = None


async def fire_due(connection: Connection) -> tuple[list[DueSchedule], bool]:
    """Fire some of what is due; return those that clean, and whether there may be more."""
    async with connection.transaction():
        found = await schedules.due(connection, limit=SCHEDULES_MAX)
        for schedule in found:
            await _fire(connection, schedule)
    return [s for s in found if s.clean is not None], len(found) == SCHEDULES_MAX


async def _fire(connection: Connection, schedule: DueSchedule) -> None:
    error: str | None = None
    try:
        trigger = msgspec.json.decode(schedule.trigger, type=Trigger)
        due = Timetable(trigger, schedule.timezone).due(
            schedule.next_at,
            schedule.now,
            misfire=schedule.misfire,
            grace_s=schedule.misfire_grace_s,
        )
    except (BadTrigger, msgspec.MsgspecError) as bad:
        error = f"The trigger cannot be read: {bad}"
        due = Due((), 0, schedule.now + timedelta(seconds=LATER_S))
    job_id = None
    if due.fires and schedule.job is not None:
        fires = [
            schedules.fire_job(
                schedule.job,
                name=schedule.name,
                job_id=schedules.fire_id(schedule.schedule_id, at),
                at=at,
                expires_after_s=schedule.expires_after_s,
            )
            for at in due.fires
        ]
        try:
            async with connection.transaction():
                error = await schedules.hand_in(connection, fires, tenant=schedule.tenant_id)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as refused:
            error = refused.diag.message_primary or type(refused).__name__
        if error is None:
            job_id = schedules.fire_id(schedule.schedule_id, due.fires[-1])
    if error is not None:
        log.error("a schedule could not fire", schedule=str(schedule.schedule_id))
    await schedules.fired(
        connection,
        schedule.schedule_id,
        next_at=due.next_at,
        fired_at=due.fires[-1] if due.fires else None,
        job_id=job_id,
        fires=0 if error else len(due.fires),
        missed=due.missed,
        error=error,
    )


async def _clean(url: str, schedule: DueSchedule) -> None:
    """Delete ended jobs, slice by slice. Who dies leaves the rest to the next fire."""
    order = msgspec.convert(json.loads(schedule.clean or "{}"), CleanJobs)
    try:
        async with open_link(url, "keep", statement_timeout="120000") as connection:
            for _ in range(CLEAN_SLICES_MAX):
                deleted = await queues.clean(
                    connection,
                    order.queue,
                    tenant=schedule.tenant_id,
                    status=order.status,
                    older_than_s=order.older_than_s or 0.0,
                    limit=CLEAN_SLICE,
                    actor=f"schedule {schedule.name}",
                    keep_last=order.keep_last,
                )
                if deleted < CLEAN_SLICE:
                    return
    except psycopg.Error as error:
        log.warning("a scheduled clean was cut short", error=type(error).__name__)

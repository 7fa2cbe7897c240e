"""A store with a past: jobs of days gone by, as if they had been accepted and ended then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

# Each day: `jobs` ended jobs with keys and history; every fifth failed and has a dead letter,
# every tenth has a receipt, every tenth an inbox message; one list's key, one event, and so on.
DAY = """
with made as materialized (
    select outbox.id_floor(%(at)s + make_interval(secs => n)) + n as id,
           gen_random_uuid() as job_id, n,
           %(at)s + make_interval(secs => n) as at
    from generate_series(1, %(jobs)s) as n
), list as materialized (select gen_random_uuid() as job_id
), keys as (
    insert into outbox.job_key (tenant_id, job_id, id, content_sha256)
    select 'default', m.job_id, m.id, sha256(m.job_id::text::bytea) from made as m
    union all
    select 'default', l.job_id, m.id - 1, sha256(l.job_id::text::bytea)
    from list as l join made as m on m.n = 1
), jobs as (
    insert into outbox.job (id, job_id, created_at, lane_id, priority, tenant_id, queue,
        list_job_id, job)
    select m.id, m.job_id, m.at, outbox.lane_of('default', 'work'), 1, 'default', 'work',
           case when m.n = 1 then (select l.job_id from list as l) end,
           '{"queue": "work", "payload": {}}'
    from made as m
), history as (
    insert into outbox.delivery (id, started_at, finished_at, lease_no, series, attempt, terminal,
        status, tenant_id)
    select m.id, m.at, m.at, 1, 1, 1, true,
           case when m.n %% 5 = 0 then 'FAILED' else 'SENT' end, 'default'
    from made as m
), dead as (
    insert into outbox.dead_letter (failed_at, id, job_id, series, attempts, tenant_id, queue,
        reason, error_message, job)
    select m.at, m.id, m.job_id, 1, 1, 'default', 'work', 'permanent', 'no',
           outbox.whole_job(m.job_id, m.at, '{"queue": "work", "payload": {}}')
    from made as m where m.n %% 5 = 0
), receipts as (
    insert into outbox.receipt (id, tenant_id, status, at)
    select m.id, 'default', 'delivered', m.at from made as m where m.n %% 10 = 1
), messages as (
    insert into outbox.inbox_message (id, tenant_id, user_id, body, created_at)
    select m.id, 'default', 'u', 'hello', m.at from made as m where m.n %% 10 = 2
), events as (
    insert into outbox.event (tenant_id, event_id, event_type, data, occurred_at, accepted_at,
        content_sha256)
    values ('default', gen_random_uuid(), 'happened', '{}', %(at)s, %(at)s, '')
), sunk as (
    insert into outbox.sink_message (tenant_id, caught_by, channel, body, created_at)
    values ('default', 'sink', 'email', 'hello', %(at)s)
), deeds as (
    insert into outbox.operator_action (at, actor, action, tenant_id)
    values (%(at)s, 'ann', 'pause', 'default')
), minutes as (
    insert into outbox.stat_quarter (at, lane_id, sent) values (%(at)s, 1, %(jobs)s)
), hours as (
    insert into outbox.stat_hour (at, lane_id, sent) values (%(at)s, 1, %(jobs)s)
)
select m.id from made as m order by m.n
"""

KEPT = """
select (select count(*) from outbox.job) as job,
       (select count(*) from outbox.job_key) as job_key,
       (select count(*) from outbox.delivery) as delivery,
       (select count(*) from outbox.receipt) as receipt,
       (select count(*) from outbox.inbox_message) as inbox_message,
       (select count(*) from outbox.dead_letter) as dead_letter,
       (select count(*) from outbox.operator_action) as operator_action,
       (select count(*) from outbox.event) as event,
       (select count(*) from outbox.sink_message) as sink_message,
       (select count(*) from outbox.stat_quarter) as stat_quarter,
       (select count(*) from outbox.stat_hour) as stat_hour
"""


def today() -> datetime:
    """Return this UTC day's noon."""
    return datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)


def days_ago(days: int) -> datetime:
    """Return the noon of a day gone by."""
    return today() - timedelta(days=days)


def live_through(admin: psycopg.Connection[Any], at: datetime, *, jobs: int) -> list[int]:
    """Have the jobs of a day in the store; return their ids."""
    return [row[0] for row in admin.execute(DAY.encode(), {"at": at, "jobs": jobs}).fetchall()]


def make_day(admin: psycopg.Connection[Any], at: datetime) -> None:
    """Have partitions for a day gone by, and for the one after it."""
    admin.execute("select outbox.make_partitions(0, %s)", (at + timedelta(days=1),))


def put_in_line(admin: psycopg.Connection[Any], job: int) -> None:
    """Make a job of a day gone by a live one, as a new series does."""
    admin.execute("select outbox.retry_job(%s, 'test')", (job,))


def kept(admin: psycopg.Connection[Any]) -> dict[str, int]:
    """Return how many rows each table has."""
    cursor = admin.execute(KEPT.encode())
    row = cursor.fetchone()
    assert row is not None
    assert cursor.description is not None
    return dict(zip((c.name for c in cursor.description), row, strict=True))


def partitions(admin: psycopg.Connection[Any], parent: str) -> list[str]:
    """Return the days that have a partition, oldest first."""
    rows = admin.execute("select day from outbox.days_of(%s) order by day", (f"outbox.{parent}",))
    return [row[0].isoformat() for row in rows.fetchall()]

"""The floor: a loop that claims and records batches by plain SQL and does nothing else.

Same tables, same order, batches of 500, a floor under its claims, and each claim brings the jobs
along, as whoever delivers needs them; no leases, no history beyond the bare row, no liveness, no
limits. Whatever runs out of Postgres costs at least this.
"""

from __future__ import annotations

import psycopg

from outbox_bench.child import Line
from outbox_bench.noop import QUEUE
from outbox_bench.orders import Floor, Ready

CLAIM = """
with picked as materialized (
    select id from outbox.entry
    where lane_id = %(lane)s and priority = 1 and claimed_by is null
      and (available_at, id) > (%(at)s, %(id)s) and available_at <= statement_timestamp()
    order by available_at, id limit 500 for update skip locked
), claimed as (
    update outbox.entry as e set claimed_by = 1, lease_no = e.lease_no + 1, attempt = e.attempt + 1
    where e.id = any(array(select id from picked)) returning e.id, e.available_at)
select c.id, c.available_at, j.job_id, j.job::text
from claimed as c
cross join lateral (
    select j.job_id, j.job from outbox.job as j where j.id = c.id offset 0) as j"""
RECORD = """
with gone as (
    delete from outbox.entry where id = any(%(ids)s) and claimed_by = 1 returning id, lease_no)
insert into outbox.delivery
    (id, finished_at, lease_no, series, attempt, terminal, status, tenant_id)
select id, clock_timestamp(), lease_no, 1, 1, true, 'SENT', 'default' from gone"""


def drain(order: Floor, line: Line) -> None:
    """Claim and record until nothing is left."""
    with psycopg.connect(order.url, autocommit=True) as connection:
        (lane,) = connection.execute(
            "select lane_id from outbox.lane where queue = %s", (QUEUE,)
        ).fetchall()
        at, last = "-infinity", 0
        line.tell(Ready())
        line.wait_for_go()
        while True:
            rows = connection.execute(
                CLAIM, {"lane": lane[0], "at": at, "id": last}, prepare=True
            ).fetchall()
            if not rows:
                return
            at, last = max((row[1], row[0]) for row in rows)
            connection.execute(RECORD, {"ids": [row[0] for row in rows]}, prepare=True)

"""A store with a backlog of 100,000 jobs, and as much history, for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.desk import Desk
from tests.postgres import Databases

BACKLOG = 100_000
LANES = 20

SEED = """
with placed as materialized (
    select n, outbox.id_floor(now() - interval '1 hour') + n as id, gen_random_uuid() as job_id,
           outbox.lane_of('tenant-' || n %% %(lanes)s, 'work') as lane_id,
           'tenant-' || n %% %(lanes)s as tenant_id,
           (array[0, 1, 1, 1, 5, 10, 1])[1 + n %% 7] as priority
    from generate_series(1, %(jobs)s) as n
), keys as (
    insert into outbox.job_key (tenant_id, job_id, id, content_sha256)
    select p.tenant_id, p.job_id, p.id, sha256('') from placed as p
), jobs as (
    insert into outbox.job (id, job_id, created_at, lane_id, priority, tenant_id, queue, job)
    select p.id, p.job_id, now(), p.lane_id, p.priority, p.tenant_id, 'work',
           jsonb_build_object('queue', 'work', 'payload', repeat('x', 300))
    from placed as p
), history as (
    insert into outbox.delivery (id, started_at, finished_at, lease_no, series, attempt, terminal,
        status, tenant_id, next_attempt_at, error_class, error_code)
    select p.id, now(), now(), 1, 1, 1, false, 'RETRYING', p.tenant_id, now(), 'temporary', 'test'
    from placed as p
)
insert into outbox.entry (id, available_at, expires_at, lane_id, lease_no, priority, attempt,
    waits)
select p.id, now() + case when p.n %% 7 = 0 then interval '1 day' else interval '-1 minute' end,
       case when p.n %% 10 = 0 then now() + interval '2 days' end, p.lane_id, 1, p.priority, 1, 1
from placed as p
"""


@pytest.fixture(scope="module", params=["analyzed", "never analyzed"])
def backlog(databases: Databases, request: pytest.FixtureRequest) -> Iterator[Desk]:
    with databases.clone() as database:
        desk = Desk(database)
        desk.admin.execute("alter table outbox.entry set (autovacuum_enabled = false)")
        desk.admin.execute(SEED.encode(), {"jobs": BACKLOG, "lanes": LANES})
        if request.param == "analyzed":
            desk.admin.execute("vacuum analyze")
        yield desk
        desk.close()

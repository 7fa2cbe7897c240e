"""What a dispatcher would have done, done behind the API's back; and short ways to a job."""

from __future__ import annotations

import psycopg

from tests.api.conftest import Api, job

FAIL = """
with gone as (delete from outbox.entry returning *), told as (
    insert into outbox.delivery (id, started_at, finished_at, lease_no, series, attempt, terminal,
        status, tenant_id, error_class, error_code, error_message)
    select g.id, now(), now(), g.lease_no + 1, g.series, 1, true, 'FAILED', j.tenant_id,
        'permanent', 'recipient.no_address', 'User has no email'
    from gone as g join outbox.job as j on j.id = g.id)
insert into outbox.dead_letter (id, job_id, series, attempts, tenant_id, queue, reason,
    error_class, error_code, error_message, job)
select g.id, j.job_id, g.series, 1, j.tenant_id, j.queue, 'permanent', 'permanent',
    'recipient.no_address', 'User has no email', outbox.whole_job(j.job_id, j.created_at, j.job)
from gone as g join outbox.job as j on j.id = g.id
"""
SEND = """
with gone as (delete from outbox.entry returning *)
insert into outbox.delivery (id, started_at, finished_at, lease_no, series, attempt, terminal,
    status, tenant_id, provider)
select g.id, now(), now(), g.lease_no + 1, g.series, 1, true, 'SENT', j.tenant_id, 'sink'
from gone as g join outbox.job as j on j.id = g.id
"""
CLAIM = "update outbox.entry set claimed_by = 7, claimed_at = now(), lease_no = lease_no + 1"


def behind(api: Api, statement: str) -> None:
    """Do what a dispatcher would have done to every live job."""
    with psycopg.connect(api.database.admin_url) as admin:
        admin.execute(statement.encode())


async def post(api: Api, **changes: object) -> str:
    answer = await api.client.post("/api/v1/jobs", json=job(**changes))
    assert answer.status_code == 202, answer.text
    job_id: str = answer.json()["job_id"]
    return job_id


async def status_of(api: Api, job_id: str) -> str:
    status: str = (await api.client.get(f"/api/v1/jobs/{job_id}")).json()["status"]
    return status

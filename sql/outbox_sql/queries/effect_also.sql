-- The same job once more for one address of several, as a job of its own: what reached the others is
-- not sent again with it. Its id follows from both, so that it is made once.
select e.result
from json_to_recordset(%(rows)s::json) as r(id bigint, tenant_id text, address text)
join outbox.job as j on j.id = r.id
cross join lateral outbox.enqueue_many_v1(
    array[outbox.whole_job(j.job_id, j.created_at, j.job - array['idempotency_key', 'send_after'])
          || jsonb_build_object('job_id', outbox.uuid5(j.job_id, r.address), 'to', r.address)],
    r.tenant_id, on_conflict => 'skip', on_fault => 'skip', fill_created => true) as e

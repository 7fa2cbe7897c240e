-- Which of these jobs have ended, and how: for callers that wait (Prefer: wait).
select k.job_id::text, k.tenant_id, s.status
from unnest(%(tenants)s::text[], %(job_ids)s::uuid[]) as w(tenant_id, job_id)
cross join lateral (select k.tenant_id, k.job_id, k.id from outbox.job_key as k
                    where k.tenant_id = w.tenant_id and k.job_id = w.job_id offset 0) as k
cross join lateral (select outbox.current_status(k.id) as status) as s

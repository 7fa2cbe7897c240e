-- The internal id of a job; two rows when a service-wide caller must say whose it means. Lanes
-- name the few tenants that have jobs, so each key is found through its index. `id` of a list of
-- addresses belongs to no job: `is_list` tells.
select k.id,
       t.tenant_id,
       not exists (select from outbox.job as j where j.id = k.id) as is_list
from (select distinct l.tenant_id from outbox.lane as l
      where %(tenant)s::text is null or l.tenant_id = %(tenant)s) as t
cross join lateral (select k.id from outbox.job_key as k
                    where k.tenant_id = t.tenant_id and k.job_id = %(job_id)s offset 0) as k
where not outbox.in_test_mode()
   or exists (select from outbox.job as j where j.id = k.id)
   or exists (select from outbox.job as j where j.list_job_id = %(job_id)s)
limit 2

-- The jobs that a list of addresses was made into.
select n.job_id, n.status
from outbox.job as j
join outbox.api_notification as n on n.id = j.id
where j.list_job_id = %(job_id)s and j.tenant_id = %(tenant)s
order by j.id

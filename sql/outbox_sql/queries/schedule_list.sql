-- Schedules by tenant and name, after a place; or one by its name.
select s.schedule_id, s.tenant_id, s.name, s.trigger::text as trigger, s.timezone, s.job::text as job, s.clean::text as clean,
       s.expires_after_s, s.misfire, s.misfire_grace_s, s.enabled, s.next_at, s.fired_at, s.last_job_id,
       s.last_error, s.last_error_at, s.fires, s.missed, s.created_at, s.updated_at, s.updated_by
from outbox.schedule as s
where (%(tenant)s::text is null or s.tenant_id = %(tenant)s)
  and (%(name)s::text is null or s.name = %(name)s)
  and (s.tenant_id, s.name) > (%(after_tenant)s, %(after_name)s)
order by s.tenant_id, s.name
limit %(limit)s

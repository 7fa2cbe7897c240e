-- Make a schedule, or change it whole. What it did so far stays; a pause too.
insert into outbox.schedule as s (tenant_id, name, trigger, timezone, job, clean, expires_after_s, misfire,
    misfire_grace_s, next_at, updated_by)
values (%(tenant)s, %(name)s, %(trigger)s::jsonb, %(timezone)s, %(job)s::jsonb, %(clean)s::jsonb,
        %(expires_after_s)s, %(misfire)s, %(misfire_grace_s)s, %(next_at)s, %(actor)s)
on conflict (tenant_id, name) do update
set trigger = excluded.trigger, timezone = excluded.timezone, job = excluded.job, clean = excluded.clean,
    expires_after_s = excluded.expires_after_s, misfire = excluded.misfire,
    misfire_grace_s = excluded.misfire_grace_s, next_at = excluded.next_at, updated_at = clock_timestamp(),
    updated_by = excluded.updated_by, last_error = null, last_error_at = null
returning s.schedule_id, s.tenant_id, s.name, s.trigger::text as trigger, s.timezone, s.job::text as job, s.clean::text as clean,
       s.expires_after_s, s.misfire, s.misfire_grace_s, s.enabled, s.next_at, s.fired_at, s.last_job_id,
       s.last_error, s.last_error_at, s.fires, s.missed, s.created_at, s.updated_at, s.updated_by

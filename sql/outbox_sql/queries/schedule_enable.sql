-- Pause a schedule, or let it go on from a given time.
update outbox.schedule as s
set enabled = %(enabled)s, next_at = case when %(enabled)s and not s.enabled then %(next_at)s else s.next_at end,
    updated_at = clock_timestamp(), updated_by = %(actor)s
where s.tenant_id = %(tenant)s and s.name = %(name)s
returning s.schedule_id, s.tenant_id, s.name, s.trigger::text as trigger, s.timezone, s.job::text as job, s.clean::text as clean,
       s.expires_after_s, s.misfire, s.misfire_grace_s, s.enabled, s.next_at, s.fired_at, s.last_job_id,
       s.last_error, s.last_error_at, s.fires, s.missed, s.created_at, s.updated_at, s.updated_by

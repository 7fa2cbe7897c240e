-- Schedules whose time has come, and the time. Skip locked: another dispatcher is at it.
select s.schedule_id, s.tenant_id, s.name, s.trigger::text as trigger, s.timezone, s.job::text as job, s.clean::text as clean,
       s.expires_after_s, s.misfire, s.misfire_grace_s, s.next_at, clock_timestamp() as now
from outbox.schedule as s
where s.enabled and s.next_at <= clock_timestamp()
order by s.next_at
limit %(limit)s
for update skip locked

-- One dead letter by its own number, or the newest of a job.
select d.dead_letter_id, d.failed_at, d.tenant_id, d.queue, d.reason, d.error_class, d.error_code, d.error_message,
       d.attempts, d.job::text as job, d.raw_value, d.replayed_at, d.replayed_by, d.id, d.series,
       (select max(n.series) from outbox.dead_letter as n where n.id = d.id) as newest_series
from outbox.dead_letter as d
where (%(tenant)s::text is null or d.tenant_id = %(tenant)s)
  and (d.dead_letter_id = %(number)s::bigint or d.id = %(id)s::bigint)
order by d.dead_letter_id desc
limit 1

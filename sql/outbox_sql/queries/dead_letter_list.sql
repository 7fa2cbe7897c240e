-- A page of dead letters, newest first. Run it unprepared.
select d.dead_letter_id, d.failed_at, d.tenant_id, d.queue, d.reason, d.error_class, d.error_code, d.error_message,
       d.attempts, d.job::text as job, d.raw_value, d.replayed_at, d.replayed_by
from outbox.dead_letter as d
where (%(tenant)s::text is null or d.tenant_id = %(tenant)s)
  and (%(queue)s::text is null or d.queue = %(queue)s)
  and (%(reason)s::text is null or d.reason = %(reason)s)
  and (%(error_code)s::text is null or d.error_code = %(error_code)s)
  and (%(template_code)s::text is null or d.job ->> 'template_code' = %(template_code)s)
  and (%(job_id)s::uuid is null or d.job_id = %(job_id)s)
  and (%(replayed)s::boolean is null or (d.replayed_at is not null) = %(replayed)s)
  and (%(since)s::timestamptz is null or d.failed_at >= %(since)s)
  and (%(until)s::timestamptz is null or d.failed_at < %(until)s)
  and (%(before)s::bigint is null or d.dead_letter_id < %(before)s)
order by d.dead_letter_id desc
limit %(limit)s

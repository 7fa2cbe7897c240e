-- A page of jobs that failed, expired or were cancelled, newest first: from the index of what went wrong, newest day
-- first. Run it unprepared, as job_list.
select n.job_id, n.tenant_id, n.status, n.waiting_for, n.channel, n.queue, n.user_id, n.template_code,
       n.locale, n.event_id, n.campaign_id, n.category, n.priority, n.created_at, n.accepted_at, n.send_after,
       n.expires_at,
       n.due_at,
       case when n.status in ('scheduled', 'pending', 'retrying') then n.due_at end as next_attempt_at,
       n.finished_at, n.series, n.attempts, nullif(n.max_attempts, 0) as max_attempts,
       n.last_error_class, n.last_error_code, n.last_error, n.receipt_status, n.receipt_at, n.resend_of,
       n.list_job_id, n.mode, n.id
from outbox.delivery as d
-- `offset 0` hands each id over as a constant: only the job's own day is read.
cross join lateral (
    select n.* from outbox.api_notification as n where n.id = d.id offset 0) as n
where d.status = upper(%(status)s::text) and d.terminal and not d.late
  -- Its last series: a replayed one is listed by how that ended.
  and n.status = %(status)s::text and n.series = d.series
  and (%(queue)s::text is null or n.queue = %(queue)s)
  and (%(tenant)s::text is null or d.tenant_id = %(tenant)s)
  and (%(channel)s::text is null or n.channel = %(channel)s)
  and (%(template_code)s::text is null or n.template_code = %(template_code)s)
  and (%(since)s::timestamptz is null or d.id >= outbox.id_floor(%(since)s))
  and (%(until)s::timestamptz is null or d.id < outbox.id_floor(%(until)s))
  and (%(before)s::bigint is null or d.id < %(before)s)
order by d.id desc
limit %(limit)s

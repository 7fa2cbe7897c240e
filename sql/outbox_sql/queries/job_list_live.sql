-- A page of jobs of a status that has not ended, newest first: from their entries. Run it unprepared, as job_list.
select n.job_id, n.tenant_id, n.status, n.waiting_for, n.channel, n.queue, n.user_id, n.template_code,
       n.locale, n.event_id, n.campaign_id, n.category, n.priority, n.created_at, n.accepted_at, n.send_after,
       n.expires_at,
       n.due_at,
       case when n.status in ('scheduled', 'pending', 'retrying') then n.due_at end as next_attempt_at,
       n.finished_at, n.series, n.attempts, nullif(n.max_attempts, 0) as max_attempts,
       n.last_error_class, n.last_error_code, n.last_error, n.receipt_status, n.receipt_at, n.resend_of,
       n.list_job_id, n.mode, n.id
from outbox.entry as e
join outbox.lane as l on l.lane_id = abs(e.lane_id)
-- `offset 0` hands each id over as a constant: only the job's own day is read.
cross join lateral (
    select n.* from outbox.api_notification as n where n.id = e.id offset 0) as n
-- As live_status has it: a call of it for each entry would cost ten times as much as these.
where (%(status)s::text = 'processing') = (e.claimed_by is not null)
  and (%(status)s::text = 'processing'
       or (%(status)s::text = 'pending') = (e.available_at <= clock_timestamp() or e.waits >= 3))
  and (%(status)s::text in ('processing', 'pending') or (%(status)s::text = 'retrying') = (e.waits = 1))
  and (%(queue)s::text is null or l.queue = %(queue)s)
  and (%(tenant)s::text is null or l.tenant_id = %(tenant)s)
  and (%(channel)s::text is null or n.channel = %(channel)s)
  and (%(template_code)s::text is null or n.template_code = %(template_code)s)
  and (%(since)s::timestamptz is null or e.id >= outbox.id_floor(%(since)s))
  and (%(until)s::timestamptz is null or e.id < outbox.id_floor(%(until)s))
  and (%(before)s::bigint is null or e.id < %(before)s)
order by e.id desc
limit %(limit)s

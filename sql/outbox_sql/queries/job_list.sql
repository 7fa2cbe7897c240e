-- A page of jobs, newest first. Run it unprepared: the planner drops the filters that are null.
select n.job_id, n.tenant_id, n.status, n.waiting_for, n.channel, n.queue, n.user_id, n.template_code,
       n.locale, n.event_id, n.campaign_id, n.category, n.priority, n.created_at, n.accepted_at, n.send_after,
       n.expires_at,
       n.due_at,
       case when n.status in ('scheduled', 'pending', 'retrying') then n.due_at end as next_attempt_at,
       n.finished_at, n.series, n.attempts, nullif(n.max_attempts, 0) as max_attempts,
       n.last_error_class, n.last_error_code, n.last_error, n.receipt_status, n.receipt_at, n.resend_of,
       n.list_job_id, n.mode, n.id
from outbox.api_notification as n
where (%(status)s::text is null or n.status = %(status)s)
  and (%(queue)s::text is null or n.queue = %(queue)s)
  and (%(channel)s::text is null or n.channel = %(channel)s)
  and (%(tenant)s::text is null or n.tenant_id = %(tenant)s)
  and (%(user_id)s::text is null or n.user_id = %(user_id)s)
  and (%(event_id)s::text is null or n.event_id = %(event_id)s)
  and (%(campaign_id)s::text is null or n.campaign_id = %(campaign_id)s)
  and (%(template_code)s::text is null or n.template_code = %(template_code)s)
  -- An array: each job is then looked up, whatever the planner believes of how many there are.
  and (%(recipient)s::text is null or n.id = any(array(select d.id from outbox.delivery as d
                                                       where d.recipient_hash = outbox.address_hash(%(recipient)s))))
  and (%(since)s::timestamptz is null or n.id >= outbox.id_floor(%(since)s))
  and (%(until)s::timestamptz is null or n.id < outbox.id_floor(%(until)s))
  and (%(before)s::bigint is null or n.id < %(before)s)
order by n.id desc
limit %(limit)s

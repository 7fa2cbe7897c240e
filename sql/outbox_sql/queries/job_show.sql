-- One job as it stands, with what its producer wrote.
select n.job_id, n.tenant_id, n.status, n.waiting_for, n.channel, n.queue, n.user_id, n.template_code,
       n.locale, n.event_id, n.campaign_id, n.category, n.priority, n.created_at, n.accepted_at, n.send_after,
       n.expires_at,
       n.due_at,
       case when n.status in ('scheduled', 'pending', 'retrying') then n.due_at end as next_attempt_at,
       n.finished_at, n.series, n.attempts, nullif(n.max_attempts, 0) as max_attempts,
       n.last_error_class, n.last_error_code, n.last_error, n.receipt_status, n.receipt_at, n.resend_of,
       n.list_job_id, n.mode, n.id, p.done, p.total, p.note, p.told_at,
       j.traceparent,
       outbox.whole_job(j.job_id, j.created_at, j.job)::text as job
from outbox.api_notification as n
join outbox.job as j on j.id = n.id
left join lateral (
    select p.done, p.total, p.note, p.at as told_at
    from outbox.progress as p
    join outbox.entry as e on e.id = p.id and e.lease_no = p.lease_no and e.claimed_by is not null
    where p.id = n.id) as p on true
where n.id = %(id)s

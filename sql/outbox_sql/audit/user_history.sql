-- What was sent, or tried, to one user, and what still waits: a row for each attempt and each
-- terminal event, and one for a job that has none yet. Newest job first.
-- param user_id text 'f3aa4a0e-97d4-4e21-a2b4-9fb7c8d9f001' the user, as producers name them
-- param tenant text 'default' whose user it is
-- param days int '90' how far back, by the time of acceptance
-- param rows_max int '1000' at most so many jobs
\if :{?user_id} \else \set user_id 'f3aa4a0e-97d4-4e21-a2b4-9fb7c8d9f001' \endif
\if :{?tenant} \else \set tenant 'default' \endif
\if :{?days} \else \set days '90' \endif
\if :{?rows_max} \else \set rows_max '1000' \endif
with job as materialized (
    select n.id, n.job_id, n.accepted_at, n.channel, n.queue, n.template_code, n.status, n.waiting_for, n.due_at
    from outbox.notification as n
    where n.tenant_id = :'tenant'::text and n.user_id = :'user_id'::text
      and n.id >= outbox.id_floor(now() - make_interval(days => :'days'::int))
    order by n.id desc
    limit :'rows_max'::int
)
select j.accepted_at, j.job_id, j.channel, j.queue, j.template_code, j.status, j.waiting_for, j.due_at,
       d.series, d.attempt, d.status as attempt_status, d.late, d.provider, d.recipient, d.subject,
       d.template_version, d.error_code, d.error_message, d.started_at, d.finished_at
from job as j
-- `offset 0` hands each id to the view as a constant: only the job's own partition is read.
left join lateral (
    select a.series, a.attempt, a.lease_no, a.status, a.late, a.provider, a.recipient, a.subject,
           a.template_version, a.error_code, a.error_message, a.started_at, a.finished_at
    from outbox.notification_delivery as a
    where a.id = j.id
    offset 0) as d on true
order by j.id desc, d.series, d.lease_no, d.late;

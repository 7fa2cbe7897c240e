-- What one event made: its jobs, with a row for each attempt and each terminal event, and one for
-- a job that has none yet. In the order in which they were accepted.
-- param event_id text '6a9f7f26-4c0c-4a91-9f3d-b159c2dcb001' the meta.event_id of the jobs
-- param tenant text '*' whose event it is; * for every tenant
-- param rows_max int '1000' at most so many jobs
\if :{?event_id} \else \set event_id '6a9f7f26-4c0c-4a91-9f3d-b159c2dcb001' \endif
\if :{?tenant} \else \set tenant '*' \endif
\if :{?rows_max} \else \set rows_max '1000' \endif
with job as materialized (
    select n.id, n.tenant_id, n.job_id, n.accepted_at, n.user_id, n.channel, n.queue, n.template_code, n.status,
           n.waiting_for, n.due_at
    from outbox.notification as n
    where n.event_id = :'event_id'::text and :'tenant'::text in ('*', n.tenant_id)
    order by n.id
    limit :'rows_max'::int
)
select j.accepted_at, j.tenant_id, j.job_id, j.user_id, j.channel, j.queue, j.template_code, j.status, j.waiting_for,
       j.due_at, d.series, d.attempt, d.status as attempt_status, d.late, d.provider, d.recipient, d.subject,
       d.template_version, d.error_code, d.error_message, d.started_at, d.finished_at
from job as j
-- `offset 0` hands each id to the view as a constant: only the job's own partition is read.
left join lateral (
    select a.series, a.attempt, a.lease_no, a.status, a.late, a.provider, a.recipient, a.subject,
           a.template_version, a.error_code, a.error_message, a.started_at, a.finished_at
    from outbox.notification_delivery as a
    where a.id = j.id
    offset 0) as d on true
order by j.id, d.series, d.lease_no, d.late;

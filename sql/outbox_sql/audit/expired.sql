-- What was never sent because its expires_at came first: newest first. attempt 0: nothing was tried.
-- param tenant text '*' whose jobs; * for every tenant
-- param days int '7' jobs accepted in the last so many days
-- param rows_max int '1000' at most so many rows
\if :{?tenant} \else \set tenant '*' \endif
\if :{?days} \else \set days '7' \endif
\if :{?rows_max} \else \set rows_max '1000' \endif
with over as materialized (
    select t.id, t.series, t.attempt, t.finished_at, t.error_code, t.error_message
    from outbox.notification_trouble as t
    where t.status = 'EXPIRED' and not t.late
      and :'tenant'::text in ('*', t.tenant_id)
      and t.id >= outbox.id_floor(now() - make_interval(days => :'days'::int))
    order by t.finished_at desc, t.id desc
    limit :'rows_max'::int
)
select o.finished_at, j.tenant_id, j.job_id, j.user_id, j.queue, j.template_code, j.campaign_id, j.accepted_at,
       j.send_after, j.expires_at, o.attempt, o.error_code, o.error_message
from over as o
-- `offset 0` hands each id to the view as a constant: only the job's own partition is read.
cross join lateral (
    select n.tenant_id, n.job_id, n.user_id, n.queue, n.template_code, n.campaign_id, n.accepted_at, n.send_after, n.expires_at
    from outbox.notification_delivery as n
    where n.id = o.id and n.series = o.series and n.status = 'EXPIRED' and not n.late
    limit 1) as j
order by o.finished_at desc, o.id desc;

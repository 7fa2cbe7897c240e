-- What was never sent because its expires_at came first: newest first. attempt 0: nothing was tried.
-- param tenant text '*' whose jobs; * for every tenant
-- param days int '7' jobs accepted in the last so many days
-- param rows_max int '1000' at most so many rows
\if :{?tenant} \else \set tenant '*' \endif
\if :{?days} \else \set days '7' \endif
\if :{?rows_max} \else \set rows_max '1000' \endif
select d.finished_at, d.tenant_id, d.job_id, d.user_id, d.queue, d.template_code, d.campaign_id, d.accepted_at,
       d.send_after, d.expires_at, d.attempt, d.error_code, d.error_message
from outbox.notification_delivery as d
where d.status = 'EXPIRED' and not d.late
  and :'tenant'::text in ('*', d.tenant_id)
  and d.id >= outbox.id_floor(now() - make_interval(days => :'days'::int))
  and d.delivery_id >= outbox.id_floor(now() - make_interval(days => :'days'::int))
order by d.finished_at desc, d.id desc
limit :'rows_max'::int;

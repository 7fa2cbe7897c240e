-- What goes wrong, by queue, provider and error: how many attempts, how many jobs ended by it.
-- param tenant text '*' whose jobs; * for every tenant
-- param days int '7' jobs accepted in the last so many days
\if :{?tenant} \else \set tenant '*' \endif
\if :{?days} \else \set days '7' \endif
select d.queue, d.provider, d.error_class, d.error_code, count(*) as attempts,
       count(*) filter (where d.status = 'FAILED') as jobs_failed,
       count(*) filter (where d.status = 'EXPIRED') as jobs_expired,
       count(distinct d.id) as jobs, count(distinct d.tenant_id) as tenants,
       min(d.finished_at) as first_at, max(d.finished_at) as last_at,
       max(left(d.error_message, 200)) as example
from outbox.notification_trouble as d
where d.error_code is not null and d.status in ('FAILED', 'RETRYING', 'EXPIRED') and not d.late
  -- Had it been too late before anything was tried, nothing went wrong here: see `expired`.
  and d.error_code <> 'job.expired'
  and :'tenant'::text in ('*', d.tenant_id)
  and d.id >= outbox.id_floor(now() - make_interval(days => :'days'::int))
group by d.queue, d.provider, d.error_class, d.error_code
order by jobs_failed desc, attempts desc, d.queue, d.error_code;

-- How long it took from acceptance to delivery, and from when the job was due: percentiles in
-- seconds, by day (UTC) and queue.
-- param tenant text '*' whose jobs; * for every tenant
-- param days int '7' jobs accepted in the last so many days
\if :{?tenant} \else \set tenant '*' \endif
\if :{?days} \else \set days '7' \endif
with took as (
    select (d.finished_at at time zone 'utc')::date as day, d.queue,
           extract(epoch from d.finished_at - d.accepted_at)::float8 as total_s,
           extract(epoch from d.finished_at - greatest(d.accepted_at, d.send_after))::float8 as due_s
    from outbox.notification_delivery as d
    where d.status = 'SENT' and not d.late
      and :'tenant'::text in ('*', d.tenant_id)
      and d.id >= outbox.id_floor(now() - make_interval(days => :'days'::int))
      and d.delivery_id >= outbox.id_floor(now() - make_interval(days => :'days'::int))
)
select t.day, t.queue, count(*) as sent,
       round(percentile_cont(0.5) within group (order by t.total_s)::numeric, 3) as total_s_p50,
       round(percentile_cont(0.95) within group (order by t.total_s)::numeric, 3) as total_s_p95,
       round(percentile_cont(0.99) within group (order by t.total_s)::numeric, 3) as total_s_p99,
       round(max(t.total_s)::numeric, 3) as total_s_max,
       round(percentile_cont(0.5) within group (order by t.due_s)::numeric, 3) as due_s_p50,
       round(percentile_cont(0.95) within group (order by t.due_s)::numeric, 3) as due_s_p95,
       round(percentile_cont(0.99) within group (order by t.due_s)::numeric, 3) as due_s_p99,
       round(max(t.due_s)::numeric, 3) as due_s_max
from took as t
group by t.day, t.queue
order by t.day desc, t.queue;

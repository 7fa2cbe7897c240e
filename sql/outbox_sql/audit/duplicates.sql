-- What may have reached its receiver more than once: jobs that were attempted again after a fault
-- that hides whether the first attempt got through. `times_sent` above 1 is certain.
-- param tenant text '*' whose jobs; * for every tenant
-- param days int '7' jobs accepted in the last so many days
-- param rows_max int '1000' at most so many rows
\if :{?tenant} \else \set tenant '*' \endif
\if :{?days} \else \set days '7' \endif
\if :{?rows_max} \else \set rows_max '1000' \endif
with doubtful as (
    select d.id, d.series
    from outbox.notification_trouble as d
    -- A late outcome, a dispatcher that died, an answer that never came.
    where (d.late or d.status <> 'SENT'
           and d.error_code in ('lease.lost', 'dispatcher.stopped', 'dispatcher.error', 'delivery.timeout', 'http.timeout',
                                'http.lost', 'http.protocol', 'smtp.lost'))
      and :'tenant'::text in ('*', d.tenant_id)
      and d.id >= outbox.id_floor(now() - make_interval(days => :'days'::int))
    group by d.id, d.series
)
select t.tenant_id, t.job_id, t.user_id, t.channel, t.queue, t.template_code, d.series, t.attempts, t.times_sent, t.late,
       t.faults, t.first_started_at, t.last_finished_at, t.provider_message_ids
from doubtful as d
cross join lateral (
    select a.tenant_id, a.job_id, a.user_id, a.channel, a.queue, a.template_code,
           count(distinct a.lease_no) filter (where a.started_at is not null) as attempts,
           count(*) filter (where a.status = 'SENT') as times_sent,
           count(*) filter (where a.late) as late,
           array_agg(distinct a.error_code) filter (where a.error_code is not null) as faults,
           min(a.started_at) as first_started_at, max(a.finished_at) as last_finished_at,
           array_agg(distinct a.provider_message_id) filter (where a.provider_message_id is not null)
               as provider_message_ids
    from outbox.notification_delivery as a
    where a.id = d.id and a.series = d.series
    group by a.tenant_id, a.job_id, a.user_id, a.channel, a.queue, a.template_code
    offset 0) as t
where t.attempts > 1
order by t.times_sent desc, t.last_finished_at desc
limit :'rows_max'::int;

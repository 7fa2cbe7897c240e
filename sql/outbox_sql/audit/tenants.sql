-- Who uses the service how much: what came to an end by tenant, in how many attempts, and what waits now.
-- Largest first. Ends are counted, not jobs: one that was replayed is counted by each of its ends. Test jobs are
-- left out.
-- param days int '30' what ended today and on so many days before
\if :{?days} \else \set days '30' \endif
with ended as (
    select c.tenant_id, sum(c.sent)::bigint as sent, sum(c.failed)::bigint as failed, sum(c.expired)::bigint as expired,
           sum(c.cancelled)::bigint as cancelled, sum(c.sent + c.failed + c.retrying)::bigint as attempts
    from outbox.notification_count as c
    where c.at >= date_trunc('day', now(), 'utc') - make_interval(days => :'days'::int)
    group by c.tenant_id
), live as (
    select b.tenant_id, sum(b.waiting + b.active + b.delayed)::bigint as not_over
    from outbox.notification_backlog as b
    group by b.tenant_id
), both_of as (
    select tenant_id, coalesce(e.sent, 0) as sent, coalesce(e.failed, 0) as failed, coalesce(e.expired, 0) as expired,
           coalesce(e.cancelled, 0) as cancelled, coalesce(l.not_over, 0) as not_over, coalesce(e.attempts, 0) as attempts
    from ended as e full join live as l using (tenant_id)
), summed as (
    select b.*, b.sent + b.failed + b.expired + b.cancelled + b.not_over as jobs from both_of as b
)
select s.tenant_id, s.jobs, round(100.0 * s.jobs / nullif(sum(s.jobs) over (), 0), 1) as percent,
       s.sent, s.failed, s.expired, s.cancelled, s.not_over, s.attempts
from summed as s
order by s.jobs desc, s.tenant_id;

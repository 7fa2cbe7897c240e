-- Dead letters that nobody has replayed, grouped by what went wrong; `over_time` counts them in 24 equal steps
-- from `since` until now. Run it unprepared.
with open_ones as (
    select d.queue, d.reason, d.error_class, d.error_code, d.failed_at, d.dead_letter_id, d.error_message,
           least(23, floor(24 * extract(epoch from d.failed_at - %(since)s)
                           / extract(epoch from clock_timestamp() - %(since)s)))::int as step
    from outbox.dead_letter as d
    where d.replayed_at is null
      and d.failed_at >= %(since)s
      and (%(tenant)s::text is null or d.tenant_id = %(tenant)s)
      and (%(queue)s::text is null or d.queue = %(queue)s)
), steps as (
    select o.queue, o.reason, o.error_class, o.error_code, o.step, count(*) as n,
           min(o.failed_at) as first_at, max(o.failed_at) as last_at, max(o.dead_letter_id) as newest
    from open_ones as o group by 1, 2, 3, 4, 5
)
select s.queue, s.reason, s.error_class, s.error_code, sum(s.n)::bigint as n, min(s.first_at) as first_at,
       max(s.last_at) as last_at,
       (select d.error_message from outbox.dead_letter as d where d.dead_letter_id = max(s.newest)) as example,
       array_agg(s.step order by s.step) as steps, array_agg(s.n order by s.step) as counts
from steps as s
group by 1, 2, 3, 4
order by 5 desc
limit 200

-- How long it took until jobs were delivered, from when they might first be (accepted, and send_after come),
-- and how long an attempt that was due waited for a dispatcher: quantiles in seconds, by day (UTC) of the delivery
-- and queue. They come from histograms, so one is right to within its bucket; above a day (a wait: above five
-- minutes) it reads as that. Test jobs are left out.
-- param tenant text '*' whose jobs; * for every tenant
-- param days int '7' what was delivered today and on so many days before
\if :{?tenant} \else \set tenant '*' \endif
\if :{?days} \else \set days '7' \endif
with counted as (
    select (c.at at time zone 'utc')::date as day, c.queue, sum(c.sent)::bigint as sent,
           array[sum(c.arrivals[1]), sum(c.arrivals[2]), sum(c.arrivals[3]), sum(c.arrivals[4]), sum(c.arrivals[5]), sum(c.arrivals[6]),
                 sum(c.arrivals[7]), sum(c.arrivals[8]), sum(c.arrivals[9]), sum(c.arrivals[10]), sum(c.arrivals[11]), sum(c.arrivals[12]),
                 sum(c.arrivals[13]), sum(c.arrivals[14]), sum(c.arrivals[15]), sum(c.arrivals[16]), sum(c.arrivals[17]), sum(c.arrivals[18])]::bigint[] as arrivals,
           array[sum(c.pickups[1]), sum(c.pickups[2]), sum(c.pickups[3]), sum(c.pickups[4]), sum(c.pickups[5]), sum(c.pickups[6]),
                 sum(c.pickups[7]), sum(c.pickups[8]), sum(c.pickups[9]), sum(c.pickups[10]), sum(c.pickups[11]), sum(c.pickups[12]),
                 sum(c.pickups[13]), sum(c.pickups[14]), sum(c.pickups[15]), sum(c.pickups[16]), sum(c.pickups[17])]::bigint[] as pickups
    from outbox.notification_count as c
    where c.at >= date_trunc('day', now(), 'utc') - make_interval(days => :'days'::int)
      and :'tenant'::text in ('*', c.tenant_id)
    group by 1, 2
)
select c.day, c.queue, c.sent,
       round(outbox.quantile_s(c.arrivals, outbox.arrival_bounds_s(), 0.5)::numeric, 3) as delivered_s_p50,
       round(outbox.quantile_s(c.arrivals, outbox.arrival_bounds_s(), 0.95)::numeric, 3) as delivered_s_p95,
       round(outbox.quantile_s(c.arrivals, outbox.arrival_bounds_s(), 0.99)::numeric, 3) as delivered_s_p99,
       round(outbox.quantile_s(c.pickups, outbox.pickup_bounds_s(), 0.5)::numeric, 3) as waited_s_p50,
       round(outbox.quantile_s(c.pickups, outbox.pickup_bounds_s(), 0.95)::numeric, 3) as waited_s_p95,
       round(outbox.quantile_s(c.pickups, outbox.pickup_bounds_s(), 0.99)::numeric, 3) as waited_s_p99
from counted as c
where c.sent > 0 or c.pickups[1] is not null
order by c.day desc, c.queue;

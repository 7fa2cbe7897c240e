-- What attempts came to since counting began, by queue: their outcomes, and in which buckets their
-- durations and delays (due -> started) fell. Without test jobs. For metrics; asked every few seconds at most.
with counted as materialized (
    select l.queue, s.duration_ms_sum, s.pickup_ms_sum, s.durations, s.pickups, s.attempts
    from outbox.lane as l
    join (select lane_id, duration_ms_sum, pickup_ms_sum, durations::bigint[], pickups::bigint[], attempts
          from outbox.stat_second where attempts is not null
          union all
          select lane_id, duration_ms_sum, pickup_ms_sum, durations, pickups, attempts
          from outbox.stat_total where attempts is not null) as s on s.lane_id = l.lane_id
    where not outbox.is_test_lane(l.scope)
), buckets as (
    select b.queue, array_agg(b.duration order by b.n) as durations, array_agg(b.pickup order by b.n) as pickups
    from (select c.queue, h.n, sum(h.duration)::bigint as duration, sum(h.pickup)::bigint as pickup
          from counted as c cross join lateral unnest(c.durations, c.pickups) with ordinality as h(duration, pickup, n)
          group by 1, 2) as b
    group by 1
), outcomes as (
    select o.queue, json_agg(json_build_array(o.provider, o.outcome, o.error_class, o.n))::text as attempts
    from (select c.queue, a.value ->> 0 as provider, a.value ->> 1 as outcome, a.value ->> 2 as error_class,
                 sum((a.value ->> 3)::bigint)::bigint as n
          from counted as c cross join lateral jsonb_array_elements(c.attempts) as a
          group by 1, 2, 3, 4) as o
    group by 1
)
select s.queue, s.duration_ms_sum, s.pickup_ms_sum, b.durations, b.pickups, o.attempts
from (select c.queue, sum(c.duration_ms_sum)::bigint as duration_ms_sum, sum(c.pickup_ms_sum)::bigint as pickup_ms_sum
      from counted as c group by 1) as s
join buckets as b on b.queue = s.queue
join outcomes as o on o.queue = s.queue
order by s.queue

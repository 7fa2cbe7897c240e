-- What dispatchers would have counted meanwhile, and upkeep rolled up.
with ended as materialized (
    select date_trunc('hour', d.finished_at) as at, j.lane_id, d.status,
           width_bucket(extract(epoch from d.finished_at - outbox.id_time(d.id))::float8, outbox.arrival_bounds_s()) + 1 as arrival,
           width_bucket(extract(epoch from d.started_at - outbox.id_time(d.id))::float8, outbox.pickup_bounds_s()) + 1 as pickup
    from outbox.delivery as d join outbox.job as j on j.id = d.id
), arrivals as (
    select p.at, p.lane_id, array_agg(p.n order by p.slot)::int[] as counts
    from (select h.at, h.lane_id, s.slot, coalesce(sum(h.n) filter (where h.arrival = s.slot), 0)::bigint as n
          from (select e.at, e.lane_id, e.arrival, count(*) as n from ended as e where e.status = 'SENT' group by 1, 2, 3) as h
          cross join generate_series(1, 18) as s(slot) group by 1, 2, 3) as p
    group by 1, 2
), pickups as (
    select p.at, p.lane_id, array_agg(p.n order by p.slot)::int[] as counts
    from (select h.at, h.lane_id, s.slot, coalesce(sum(h.n) filter (where h.pickup = s.slot), 0)::bigint as n
          from (select e.at, e.lane_id, e.pickup, count(*) as n from ended as e where e.pickup is not null group by 1, 2, 3) as h
          cross join generate_series(1, 17) as s(slot) group by 1, 2, 3) as p
    group by 1, 2
)
insert into outbox.stat_hour (at, lane_id, sent, failed, retrying, expired, cancelled, arrivals, pickups, durations)
select c.at, c.lane_id, c.sent, c.failed, c.retrying, c.expired, c.cancelled, a.counts, p.counts, p.counts
from (select e.at, e.lane_id, count(*) filter (where e.status = 'SENT') as sent,
             count(*) filter (where e.status = 'FAILED') as failed, count(*) filter (where e.status = 'RETRYING') as retrying,
             count(*) filter (where e.status = 'EXPIRED') as expired, count(*) filter (where e.status = 'CANCELLED') as cancelled
      from ended as e group by 1, 2) as c
left join arrivals as a on a.at = c.at and a.lane_id = c.lane_id
left join pickups as p on p.at = c.at and p.lane_id = c.lane_id

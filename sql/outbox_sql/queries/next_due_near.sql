-- Where in some lanes the first entry waits behind a place, which each priority has its own of: what
-- next_due tells of all lanes, without a walk over what was delivered long ago and cannot be vacuumed.
with place as materialized (
    select a.*
    from unnest(%(lane_ids)s::int[], %(urgent_at)s::timestamptz[], %(urgent_id)s::bigint[],
                %(high_at)s::timestamptz[], %(high_id)s::bigint[],
                %(normal_at)s::timestamptz[], %(normal_id)s::bigint[],
                %(low_at)s::timestamptz[], %(low_id)s::bigint[])
         as a(lane_id, urgent_at, urgent_id, high_at, high_id, normal_at, normal_id, low_at, low_id)
)
select a.lane_id, f.priority, d.available_at, d.id, clock_timestamp() as now
from place as a
cross join lateral (values (10, a.urgent_at, a.urgent_id), (5, a.high_at, a.high_id),
                           (1, a.normal_at, a.normal_id), (0, a.low_at, a.low_id)) as f(priority, at, id)
cross join lateral (
    select e.available_at, e.id
    from outbox.entry as e
    where e.lane_id = a.lane_id and e.priority = f.priority and e.claimed_by is null
      and (e.available_at, e.id) > (f.at, f.id)
    order by e.available_at, e.id
    limit 1) as d

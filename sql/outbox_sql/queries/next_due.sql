-- Where in each lane and priority the first entry waits, and when it becomes due. A loose index scan:
-- it costs one probe for each (lane, priority) that has entries, and nothing for idle lanes; but it
-- walks over all that an old snapshot keeps from being vacuumed. Followers of an ordering_key
-- (negative) are due when they become its head.
with recursive place as (
    (select e.lane_id, e.priority
     from outbox.entry as e
     where e.lane_id > 0
     order by e.lane_id, e.priority
     limit 1)
    union all
    select n.lane_id, n.priority
    from place as p
    cross join lateral (
        select e.lane_id, e.priority
        from outbox.entry as e
        where (e.lane_id, e.priority) > (p.lane_id, p.priority)
        order by e.lane_id, e.priority
        limit 1) as n
)
select p.lane_id, p.priority, d.available_at, d.id, clock_timestamp() as now
from place as p
cross join lateral (
    select e.available_at, e.id
    from outbox.entry as e
    where e.lane_id = p.lane_id and e.priority = p.priority and e.claimed_by is null
    order by e.available_at, e.id
    limit 1) as d

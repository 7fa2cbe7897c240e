-- Which of these lanes have due entries, and when the next entry of each becomes due.
select d.lane_id, min(d.available_at) as available_at, clock_timestamp() as now
from (
    select l.lane_id, e.available_at
    from unnest(%(lane_ids)s::int[]) as l(lane_id)
    cross join unnest('{10,5,1,0}'::smallint[]) as p(priority)
    cross join lateral (
        select e.available_at
        from outbox.entry as e
        where e.lane_id = l.lane_id and e.priority = p.priority and e.claimed_by is null
        order by e.available_at, e.id
        limit 1) as e) as d
group by d.lane_id

-- The lanes that are held, over all queues, with how much waits in each (as lane_list).
select l.lane_id, l.tenant_id, l.queue, l.scope, l.weight, l.concurrency_max, l.rate_per_s, l.burst, l.paused_at, l.paused_by,
       l.held_at, l.hold_code, l.hold_reason, l.probe_at,
       (select count(*) from (select from outbox.entry as e
                              where e.lane_id in (l.lane_id, -l.lane_id) and e.claimed_by is null limit 10000) as w) as waiting,
       -- Claims go from the front of each priority.
       (select count(e.claimed_by)
        from unnest(array[0, 1, 5, 10]::smallint[]) as p(priority)
        cross join lateral (select e.claimed_by from outbox.entry as e
                            where e.lane_id = l.lane_id and e.priority = p.priority
                            order by e.available_at, e.id limit 1000) as e) as active
from outbox.lane as l
where l.held_at is not null
  and (%(tenant)s::text is null or l.tenant_id = %(tenant)s)
order by l.held_at
limit 100

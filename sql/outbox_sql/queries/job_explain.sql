-- Why a live job is where it is: its entry, its lane, and who could take it. The place in line is
-- counted up to a bound only, so that asking costs the same whatever the backlog.
select e.available_at, e.waits, e.priority, e.attempt, e.series, e.crashes, e.cancel, e.lease_until, e.claimed_at,
       d.name as claimed_by,
       l.tenant_id, l.queue, l.scope, l.paused_at, l.paused_by, l.held_at, l.hold_code, l.hold_reason, l.probe_at,
       case when e.claimed_by is null then (
           select count(*)
           from (select from outbox.entry as o
                 where o.lane_id = e.lane_id and o.claimed_by is null and o.available_at <= clock_timestamp()
                   and (o.priority > e.priority
                        or o.priority = e.priority and (o.available_at, o.id) < (e.available_at, e.id))
                 limit %(ahead_max)s) as ahead)
       end as ahead,
       (select count(*) from outbox.dispatcher as a
        where not a.fenced and a.rescued_at is null and a.heartbeat_at > clock_timestamp() - interval '10 seconds'
          and (a.queues is null or l.queue = any(a.queues))) as dispatchers_alive,
       clock_timestamp() as now
from outbox.entry as e
join outbox.lane as l on l.lane_id = e.lane_id
left join outbox.dispatcher as d on d.epoch = e.claimed_by
where e.id = %(id)s

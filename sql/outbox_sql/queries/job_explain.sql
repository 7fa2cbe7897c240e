-- Why a live job is where it is: its entry, its lane, and who could take it. The place in line is
-- counted up to a bound only, so that asking costs the same whatever the backlog. For a follower of an
-- ordering_key it is the place in that order; `head_job_id` is the job that all of it waits for.
select e.available_at, e.waits, e.priority, e.attempt, e.series, e.crashes, e.cancel, e.lease_until, e.claimed_at,
       d.name as claimed_by,
       l.tenant_id, l.queue, l.scope, l.paused_at, l.paused_by, l.held_at, l.hold_code, l.hold_reason, l.probe_at,
       case when e.lane_id < 0 then (
           select count(*)
           from (select from outbox.entry as o
                 where o.ordering_id = e.ordering_id and o.place < e.place
                 limit %(ahead_max)s) as ahead)
       when e.claimed_by is null then (
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
       (select count(*) from outbox.dispatcher as a
        where not a.fenced and a.rescued_at is null and a.heartbeat_at > clock_timestamp() - interval '10 seconds'
          and (a.queues is null or l.queue = any(a.queues))
          and coalesce('channel:' || f.channel, 'queue:' || l.queue) = any(a.handlers)) as handlers_alive,
       f.channel, n.concurrency_max, n.places_taken, n.rate_per_s, n.tokens, n.destination, n.destination_rate_per_s,
       n.destination_tokens, n.destination_paused_until, n.destination_open_until, n.destination_opened_at,
       e.lane_id < 0 as follows,
       h.job_id as head_job_id,
       g.dead_id is not null as head_is_dead,
       clock_timestamp() as now
from outbox.entry as e
join outbox.lane as l on l.lane_id = abs(e.lane_id)
join outbox.job as f on f.id = e.id
cross join lateral outbox.limits_now(l.lane_id) as n
left join outbox.ordering_gap as g on g.ordering_id = e.ordering_id and e.lane_id < 0
left join lateral (
    select j.job_id
    from outbox.job as j
    where e.lane_id < 0
      and j.id = coalesce(g.dead_id, (select o.id from outbox.entry as o
                                      where o.ordering_id = e.ordering_id and o.place < e.place
                                      order by o.place limit 1))) as h on true
left join outbox.dispatcher as d on d.epoch = e.claimed_by
where e.id = %(id)s

-- Figures of queues as the caller sees them: all, or one. Counts of live jobs are of now, and those that
-- `estimated` names are no counts (see queue_counts); those of ended ones are of the last 15 minutes;
-- totals are of all time that is counted. Test jobs are no part of them, but for a test key, whose figures
-- are of test jobs alone.
with all_lanes as (
    select l.lane_id, l.queue, l.paused_at, l.held_at, outbox.is_test_lane(l.scope) = outbox.in_test_mode() as counts
    from outbox.lane as l
    where (%(queue)s::text is null or l.queue = %(queue)s)
      and (%(tenant)s::text is null or l.tenant_id = %(tenant)s)
), lanes as (
    select l.lane_id, l.queue from all_lanes as l where l.counts
), recent as (
    -- Seconds are folded into minutes and totals only once they are 20 minutes old.
    select l.queue, sum(s.sent)::bigint as completed, sum(s.failed)::bigint as failed,
           sum(s.expired)::bigint as expired, sum(s.sent + s.failed + s.retrying)::bigint as attempts,
           sum(s.duration_ms_sum)::bigint as duration_ms_sum,
           array[
               coalesce(sum(s.durations[1]), 0)::bigint,
               coalesce(sum(s.durations[2]), 0)::bigint,
               coalesce(sum(s.durations[3]), 0)::bigint,
               coalesce(sum(s.durations[4]), 0)::bigint,
               coalesce(sum(s.durations[5]), 0)::bigint,
               coalesce(sum(s.durations[6]), 0)::bigint,
               coalesce(sum(s.durations[7]), 0)::bigint,
               coalesce(sum(s.durations[8]), 0)::bigint,
               coalesce(sum(s.durations[9]), 0)::bigint,
               coalesce(sum(s.durations[10]), 0)::bigint,
               coalesce(sum(s.durations[11]), 0)::bigint,
               coalesce(sum(s.durations[12]), 0)::bigint,
               coalesce(sum(s.durations[13]), 0)::bigint,
               coalesce(sum(s.durations[14]), 0)::bigint,
               coalesce(sum(s.durations[15]), 0)::bigint,
               coalesce(sum(s.durations[16]), 0)::bigint,
               coalesce(sum(s.durations[17]), 0)::bigint
           ] as durations
    from lanes as l
    join outbox.stat_second as s on s.lane_id = l.lane_id
    where s.at > clock_timestamp() - interval '15 minutes'
    group by l.queue
), totals as (
    select l.queue, sum(s.sent)::bigint as sent, sum(s.failed)::bigint as failed,
           sum(s.expired)::bigint as expired, sum(s.cancelled)::bigint as cancelled,
           sum(s.rescued)::bigint as rescued
    from lanes as l
    join (select lane_id, sent, failed, expired, cancelled, rescued from outbox.stat_second
          union all
          select lane_id, sent, failed, expired, cancelled, rescued from outbox.stat_total) as s
      on s.lane_id = l.lane_id
    group by l.queue
), names as (
    select l.queue, bool_or(l.paused_at is not null) as any_paused,
           count(*) filter (where l.held_at is not null and l.counts) as held
    from all_lanes as l group by l.queue
    union
    select h.name, false, 0 from outbox.handler as h
    where (%(queue)s::text is null or h.name = %(queue)s)
      and not exists (select from all_lanes as l where l.queue = h.name)
)
select n.queue,
       coalesce(v.waiting, 0) as waiting,
       coalesce(v.active, 0) as active,
       coalesce(v.delayed, 0) as delayed,
       coalesce(v.estimated, '{}') as estimated,
       extract(epoch from clock_timestamp() - v.oldest_at)::float8 as oldest_waiting_s,
       coalesce(r.completed, 0) as completed,
       coalesce(r.failed, 0) as failed,
       coalesce(r.expired, 0) as expired,
       coalesce(r.attempts, 0) as attempts,
       coalesce(r.duration_ms_sum, 0) as duration_ms_sum,
       coalesce(r.durations, '{}') as durations,
       coalesce(t.sent, 0) as total_completed,
       coalesce(t.failed, 0) as total_failed,
       coalesce(t.expired, 0) as total_expired,
       coalesce(t.cancelled, 0) as total_cancelled,
       coalesce(t.rescued, 0) as total_rescued,
       exists (select from outbox.queue_pause as q where q.queue = n.queue)
           or (%(tenant)s::text is not null and n.any_paused) as paused,
       n.held,
       (select count(*) from outbox.dispatcher as d
        where not d.fenced and d.rescued_at is null and d.heartbeat_at > clock_timestamp() - interval '10 seconds'
          and (d.queues is null or n.queue = any(d.queues))) as dispatchers
from names as n
left join outbox.queue_counts(%(queue)s::text, %(tenant)s::text, %(walk)s::boolean) as v on v.queue = n.queue
left join recent as r on r.queue = n.queue
left join totals as t on t.queue = n.queue
order by n.queue

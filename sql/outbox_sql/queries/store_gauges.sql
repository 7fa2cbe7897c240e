-- What the store as a whole looks like beside its queues; asked every few seconds at most. Test jobs
-- are no part of it.
select (select count(*) from outbox.dispatcher as d
        where not d.fenced and d.rescued_at is null
          and d.heartbeat_at > clock_timestamp() - interval '10 seconds') as dispatchers,
       (select coalesce(json_agg(json_build_array(l.tenant_id, l.queue, l.scope)), '[]')::text
        from (select l.tenant_id, l.queue, l.scope from outbox.lane as l
              where l.held_at is not null and not outbox.is_test_lane(l.scope)
                and (l.scope <> 'ambiguous' or exists (select from outbox.entry as e where e.lane_id = l.lane_id))
              limit 100) as l) as held,
       (select coalesce(json_agg(json_build_array(g.queue, g.reason, g.n)), '[]')::text
        from (select coalesce(d.queue, '') as queue, d.reason, count(*) as n
              from outbox.dead_letter as d where d.replayed_at is null and not d.test group by 1, 2) as g) as dead_letters,
       -- An outcome that came too late has no lane any more, so no queue.
       ((select coalesce(sum(s.late), 0) from outbox.stat_second as s)
        + (select coalesce(sum(t.late), 0) from outbox.stat_total as t))::bigint as late_outcomes,
       coalesce(extract(epoch from clock_timestamp() - (
           select min(a.xact_start) from pg_stat_activity as a
           where a.backend_xmin is not null and a.datname = current_database())), 0)::float8 as snapshot_age_s,
       shut.destinations_paused,
       shut.destinations_broken,
       outbox.partition_days_left() as partition_days_left,
       (select coalesce(json_agg(json_build_array(o.rule, o.severity, o.n)), '[]')::text
        from (select a.rule, a.severity, count(*) as n
              from outbox.alert as a where a.state = 'open' group by 1, 2) as o) as alerts
from (select count(*) filter (where d.paused_until is not null) as destinations_paused,
             count(*) filter (where d.breaker <> 'closed') as destinations_broken
      from outbox.list_destinations() as d) as shut

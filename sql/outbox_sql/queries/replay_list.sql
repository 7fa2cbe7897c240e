-- A page of replays, newest first. Run it unprepared.
select r.run_id, r.tenant_id, r.filter::text as filter, r.rate_per_s, r.jobs_max, r.state, r.plan::text as plan,
       r.replayed, r.expired, r.duplicate, r.suppressed, r.gone, r.begun_at, r.begun_by, r.reason, r.ended_at,
       r.stopped_by,
       (select count(*)::int from outbox.dispatcher as d
        where not d.fenced and d.rescued_at is null
          and d.heartbeat_at > clock_timestamp() - make_interval(secs => d.lease_s)) as dispatchers
from outbox.replay_run as r
where (%(tenant)s::text is null or r.tenant_id = %(tenant)s)
  and (%(state)s::text is null or r.state = %(state)s)
  and (%(at)s::timestamptz is null or (r.begun_at, r.run_id) < (%(at)s, %(run_id)s::uuid))
order by r.begun_at desc, r.run_id desc
limit %(limit)s

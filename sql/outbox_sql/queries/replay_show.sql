-- One run of a replay.
select r.run_id, r.tenant_id, r.filter::text as filter, r.rate_per_s, r.jobs_max, r.state, r.plan::text as plan,
       r.replayed, r.expired, r.duplicate, r.suppressed, r.gone, r.begun_at, r.begun_by, r.reason, r.ended_at,
       r.stopped_by,
       (select count(*)::int from outbox.dispatcher as d
        where not d.fenced and d.rescued_at is null
          and d.heartbeat_at > clock_timestamp() - make_interval(secs => d.lease_s)) as dispatchers
from outbox.replay_run as r
where r.run_id = %(run_id)s

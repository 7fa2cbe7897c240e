-- All lanes and the version that they stand for, in one snapshot.
select c.version, c.catalog, l.lane_id, l.tenant_id, l.queue, l.scope, l.paused_at is not null as paused,
       l.held_at is not null as held, l.probe_at, l.weight, l.concurrency_max, l.rate_per_s is not null as is_rated
from outbox.control as c
left join outbox.lane as l on true

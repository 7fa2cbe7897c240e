-- The dispatchers that live, or have been silent for less than an hour.
select d.name, d.version, d.pid, d.queues, d.started_at, d.heartbeat_at,
       not d.fenced and d.rescued_at is null and d.heartbeat_at > clock_timestamp() - interval '10 seconds' as alive
from outbox.dispatcher as d
where d.heartbeat_at > clock_timestamp() - interval '1 hour'
order by alive desc, d.started_at desc
limit 50

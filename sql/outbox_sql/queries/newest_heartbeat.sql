-- The newest heartbeat of any dispatcher that is not known to be dead; no row: there is none.
select d.heartbeat_at as at, extract(epoch from clock_timestamp() - d.heartbeat_at)::float8 as age_s
from outbox.dispatcher as d
where not d.fenced and d.rescued_at is null
order by d.heartbeat_at desc
limit 1

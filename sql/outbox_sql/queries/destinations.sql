-- Destinations that have a rate, are paused, have an open breaker or are watched: how long, by the database's clock.
select n.name, d.rate_per_s is not null as is_rated,
       greatest(extract(epoch from greatest(d.paused_until, d.open_until) - clock_timestamp())::float8, 0) as closed_s,
       d.open_until is not null as is_open
from (select o.name from outbox.destination as o
      where o.rate_per_s is not null or o.paused_until > clock_timestamp() or o.open_until is not null
      union
      select h.name from outbox.destination_health as h) as n
left join outbox.destination as d on d.name = n.name
order by d.rate_per_s is null, d.paused_until desc
limit 10000

-- Destinations that have a rate, or are paused: how long, by the database's clock.
select d.name, d.rate_per_s is not null as is_rated,
       greatest(extract(epoch from d.paused_until - clock_timestamp())::float8, 0) as paused_s
from outbox.destination as d
where d.rate_per_s is not null or d.paused_until > clock_timestamp()
order by d.rate_per_s is null, d.paused_until desc
limit 10000

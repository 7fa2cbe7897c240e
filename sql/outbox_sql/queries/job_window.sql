-- How far down a page of jobs is looked for where no index leads to them: the days below its beginning that hold
-- `rows_max` jobs together, as ANALYZE has counted, and one at least. Nothing: to the end.
select d.low, outbox.id_time(d.low) as since
from (select d.day, d.low, sum(greatest(c.reltuples, 0)) over (order by d.day desc) as jobs,
             min(d.day) over () as first_day
      from outbox.days_of('outbox.job') as d
      join pg_class as c on c.oid = to_regclass('outbox.' || d.child)
      where d.low < least(%(before)s::bigint, outbox.id_floor(%(until)s::timestamptz), outbox.id_floor(clock_timestamp()))) as d
where d.jobs >= %(rows_max)s
  and d.day > d.first_day
order by d.day desc
limit 1

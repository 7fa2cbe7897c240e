-- What each provider's attempts came to in the last quarter of an hour. Run it unprepared.
select l.queue, a.value ->> 0 as provider, a.value ->> 1 as outcome, a.value ->> 2 as error_class,
       sum((a.value ->> 3)::bigint)::bigint as n
from outbox.stat_second as s
join outbox.lane as l on l.lane_id = s.lane_id
cross join lateral jsonb_array_elements(s.attempts) as a
where s.at > clock_timestamp() - interval '15 minutes'
  and (%(tenant)s::text is null or l.tenant_id = %(tenant)s)
group by 1, 2, 3, 4
order by 1, 2, 5 desc
limit 200

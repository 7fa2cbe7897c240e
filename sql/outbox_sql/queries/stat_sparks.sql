-- How many jobs each queue sent in each step of the last minutes, from the seconds that are not rolled up yet (20
-- minutes): for the line beside it. Without histograms: adding those up would cost ten times as much.
select l.queue,
       date_bin(make_interval(secs => %(step_s)s), s.at, timestamptz '2020-01-01 00:00:00+00') as at,
       sum(s.sent)::bigint as sent
from outbox.stat_second as s
join outbox.lane as l on l.lane_id = s.lane_id
where s.at >= %(since)s
  and (%(tenant)s::text is null or l.tenant_id = %(tenant)s)
  and (%(queue)s::text is null or l.queue = %(queue)s)
group by 1, 2

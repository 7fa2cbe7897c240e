-- What was done over time, a row for each step that had something: for plots. Seconds are younger than
-- 20 minutes or so; older are quarters of an hour, kept for two days, and hours. It reads counts alone, so history
-- costs nothing; test jobs are told to a test key alone. Run it unprepared: of quarters and hours the planner then leaves one out.
with counted as (
    select s.at, s.lane_id, s.sent, s.failed, s.retrying, s.durations, s.pickups
    from outbox.stat_second as s
    where s.at >= %(since)s
    union all
    select s.at, s.lane_id, s.sent, s.failed, s.retrying, s.durations, s.pickups
    from outbox.stat_quarter as s
    where s.at >= %(since)s and %(step_s)s < 3600
    union all
    select s.at, s.lane_id, s.sent, s.failed, s.retrying, s.durations, s.pickups
    from outbox.stat_hour as s
    where s.at >= %(since)s and %(step_s)s >= 3600
)
select date_bin(make_interval(secs => %(step_s)s), s.at, timestamptz '2020-01-01 00:00:00+00') as at,
       sum(s.sent)::bigint as sent, sum(s.failed)::bigint as failed, sum(s.retrying)::bigint as retrying,
       array[
           coalesce(sum(s.durations[1]), 0), coalesce(sum(s.durations[2]), 0), coalesce(sum(s.durations[3]), 0), coalesce(sum(s.durations[4]), 0),
           coalesce(sum(s.durations[5]), 0), coalesce(sum(s.durations[6]), 0), coalesce(sum(s.durations[7]), 0), coalesce(sum(s.durations[8]), 0),
           coalesce(sum(s.durations[9]), 0), coalesce(sum(s.durations[10]), 0), coalesce(sum(s.durations[11]), 0), coalesce(sum(s.durations[12]), 0),
           coalesce(sum(s.durations[13]), 0), coalesce(sum(s.durations[14]), 0), coalesce(sum(s.durations[15]), 0), coalesce(sum(s.durations[16]), 0),
           coalesce(sum(s.durations[17]), 0)
       ]::bigint[] as durations,
       array[
           coalesce(sum(s.pickups[1]), 0), coalesce(sum(s.pickups[2]), 0), coalesce(sum(s.pickups[3]), 0), coalesce(sum(s.pickups[4]), 0),
           coalesce(sum(s.pickups[5]), 0), coalesce(sum(s.pickups[6]), 0), coalesce(sum(s.pickups[7]), 0), coalesce(sum(s.pickups[8]), 0),
           coalesce(sum(s.pickups[9]), 0), coalesce(sum(s.pickups[10]), 0), coalesce(sum(s.pickups[11]), 0), coalesce(sum(s.pickups[12]), 0),
           coalesce(sum(s.pickups[13]), 0), coalesce(sum(s.pickups[14]), 0), coalesce(sum(s.pickups[15]), 0), coalesce(sum(s.pickups[16]), 0),
           coalesce(sum(s.pickups[17]), 0)
       ]::bigint[] as pickups
from counted as s
join outbox.lane as l on l.lane_id = s.lane_id
where outbox.is_test_lane(l.scope) = outbox.in_test_mode()
  and (%(tenant)s::text is null or l.tenant_id = %(tenant)s)
  and (%(queue)s::text is null or l.queue = %(queue)s)
group by 1
order by 1

-- Fold seconds that are older than the shown quarter of an hour into minutes and totals. Whoever
-- locks the rows first does it; the others skip them.
with old as materialized (
    select ctid, s.*
    from outbox.stat_second as s
    where s.at < clock_timestamp() - interval '20 minutes'
    order by s.at
    limit %(limit)s
    for update skip locked
), gone as (
    delete from outbox.stat_second as s where s.ctid = any(array(select ctid from old))
), summed as materialized (
    select date_trunc('minute', o.at) as at, o.lane_id, sum(o.duration_ms_sum) as duration_ms_sum, sum(o.sent) as sent,
           sum(o.failed) as failed, sum(o.retrying) as retrying, sum(o.expired) as expired,
           sum(o.cancelled) as cancelled, sum(o.rescued) as rescued, sum(o.late) as late
    from old as o group by 1, 2
), buckets as materialized (
    select b.at, b.lane_id, array_agg(b.duration order by b.n) as durations, array_agg(b.pickup order by b.n) as pickups
    from (select date_trunc('minute', o.at) as at, o.lane_id, h.n, sum(h.duration)::int as duration, sum(h.pickup)::int as pickup
          from old as o cross join lateral unnest(o.durations, o.pickups) with ordinality as h(duration, pickup, n)
          group by 1, 2, 3) as b
    group by 1, 2
), minutes as (
    insert into outbox.stat_minute (at, lane_id, duration_ms_sum, sent, failed, retrying, expired, cancelled, rescued,
        late, durations, pickups)
    select s.at, s.lane_id, s.duration_ms_sum, s.sent, s.failed, s.retrying, s.expired, s.cancelled, s.rescued, s.late,
        b.durations, b.pickups
    from summed as s left join buckets as b on b.at = s.at and b.lane_id = s.lane_id
), per_lane as materialized (
    select s.lane_id, sum(s.duration_ms_sum) as duration_ms_sum, sum(s.sent) as sent, sum(s.failed) as failed,
           sum(s.retrying) as retrying, sum(s.expired) as expired, sum(s.cancelled) as cancelled,
           sum(s.rescued) as rescued, sum(s.late) as late,
           (select array_agg(x.total order by x.n)
            from (select h.n, sum(h.value) as total from buckets as b cross join lateral unnest(b.durations) with ordinality as h(value, n)
                  where b.lane_id = s.lane_id group by h.n) as x) as durations,
           (select array_agg(x.total order by x.n)
            from (select h.n, sum(h.value) as total from buckets as b cross join lateral unnest(b.pickups) with ordinality as h(value, n)
                  where b.lane_id = s.lane_id group by h.n) as x) as pickups
    from summed as s group by s.lane_id
), totals as (
    insert into outbox.stat_total as t (lane_id, duration_ms_sum, sent, failed, retrying, expired, cancelled, rescued,
        late, durations, pickups)
    select p.lane_id, p.duration_ms_sum, p.sent, p.failed, p.retrying, p.expired, p.cancelled, p.rescued, p.late,
        p.durations, p.pickups
    from per_lane as p
    on conflict (lane_id) do update
    set duration_ms_sum = t.duration_ms_sum + excluded.duration_ms_sum,
        sent = t.sent + excluded.sent,
        failed = t.failed + excluded.failed,
        retrying = t.retrying + excluded.retrying,
        expired = t.expired + excluded.expired,
        cancelled = t.cancelled + excluded.cancelled,
        rescued = t.rescued + excluded.rescued,
        late = t.late + excluded.late,
        durations = coalesce((select array_agg(coalesce(a, 0) + coalesce(b, 0) order by n)
                              from unnest(t.durations, excluded.durations) with ordinality as h(a, b, n)), t.durations),
        pickups = coalesce((select array_agg(coalesce(a, 0) + coalesce(b, 0) order by n)
                            from unnest(t.pickups, excluded.pickups) with ordinality as h(a, b, n)), t.pickups)
)
select count(*) from old

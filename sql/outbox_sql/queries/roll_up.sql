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
           sum(o.cancelled) as cancelled, sum(o.rescued) as rescued, sum(o.late) as late,
           sum(o.pickup_ms_sum) as pickup_ms_sum
    from old as o group by 1, 2
), buckets as materialized (
    select b.at, b.lane_id, array_agg(b.duration order by b.n) as durations, array_agg(b.pickup order by b.n) as pickups
    from (select date_trunc('minute', o.at) as at, o.lane_id, h.n, sum(h.duration)::int as duration, sum(h.pickup)::int as pickup
          from old as o cross join lateral unnest(o.durations, o.pickups) with ordinality as h(duration, pickup, n)
          group by 1, 2, 3) as b
    group by 1, 2
), tried as materialized (
    select date_trunc('minute', o.at) as at, o.lane_id, a.value ->> 0 as provider, a.value ->> 1 as outcome,
           a.value ->> 2 as error_class, sum((a.value ->> 3)::bigint) as n
    from old as o cross join lateral jsonb_array_elements(o.attempts) as a
    group by 1, 2, 3, 4, 5
), logged as (
    insert into outbox.outcome_log (at, xid, lane_id, ids, lease_nos)
    select o.at, o.xid, o.lane_id, o.ids, o.lease_nos from old as o where o.ids is not null
), minutes as (
    insert into outbox.stat_minute (at, lane_id, duration_ms_sum, sent, failed, retrying, expired, cancelled, rescued,
        late, pickup_ms_sum, durations, pickups, attempts)
    select s.at, s.lane_id, s.duration_ms_sum, s.sent, s.failed, s.retrying, s.expired, s.cancelled, s.rescued, s.late,
        s.pickup_ms_sum, b.durations, b.pickups,
        (select jsonb_agg(jsonb_build_array(a.provider, a.outcome, a.error_class, a.n))
         from tried as a where a.at = s.at and a.lane_id = s.lane_id)
    from summed as s left join buckets as b on b.at = s.at and b.lane_id = s.lane_id
), per_lane as materialized (
    select s.lane_id, sum(s.duration_ms_sum) as duration_ms_sum, sum(s.sent) as sent, sum(s.failed) as failed,
           sum(s.retrying) as retrying, sum(s.expired) as expired, sum(s.cancelled) as cancelled,
           sum(s.rescued) as rescued, sum(s.late) as late, sum(s.pickup_ms_sum) as pickup_ms_sum,
           (select array_agg(x.total order by x.n)
            from (select h.n, sum(h.value) as total from buckets as b cross join lateral unnest(b.durations) with ordinality as h(value, n)
                  where b.lane_id = s.lane_id group by h.n) as x) as durations,
           (select array_agg(x.total order by x.n)
            from (select h.n, sum(h.value) as total from buckets as b cross join lateral unnest(b.pickups) with ordinality as h(value, n)
                  where b.lane_id = s.lane_id group by h.n) as x) as pickups,
           (select jsonb_agg(jsonb_build_array(x.provider, x.outcome, x.error_class, x.n))
            from (select a.provider, a.outcome, a.error_class, sum(a.n) as n from tried as a
                  where a.lane_id = s.lane_id group by 1, 2, 3) as x) as attempts
    from summed as s group by s.lane_id
), totals as (
    insert into outbox.stat_total as t (lane_id, duration_ms_sum, sent, failed, retrying, expired, cancelled, rescued,
        late, pickup_ms_sum, durations, pickups, attempts)
    select p.lane_id, p.duration_ms_sum, p.sent, p.failed, p.retrying, p.expired, p.cancelled, p.rescued, p.late,
        p.pickup_ms_sum, p.durations, p.pickups, p.attempts
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
        pickup_ms_sum = t.pickup_ms_sum + excluded.pickup_ms_sum,
        durations = coalesce((select array_agg(coalesce(a, 0) + coalesce(b, 0) order by n)
                              from unnest(t.durations, excluded.durations) with ordinality as h(a, b, n)), t.durations),
        pickups = coalesce((select array_agg(coalesce(a, 0) + coalesce(b, 0) order by n)
                            from unnest(t.pickups, excluded.pickups) with ordinality as h(a, b, n)), t.pickups),
        attempts = coalesce((select jsonb_agg(jsonb_build_array(x.provider, x.outcome, x.error_class, x.n))
                             from (select a.value ->> 0 as provider, a.value ->> 1 as outcome, a.value ->> 2 as error_class,
                                          sum((a.value ->> 3)::bigint) as n
                                   from (select jsonb_array_elements(t.attempts)
                                         union all select jsonb_array_elements(excluded.attempts)) as a(value)
                                   group by 1, 2, 3) as x), t.attempts)
)
select count(*) from old

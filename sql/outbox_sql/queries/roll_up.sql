-- Fold seconds that are older than the shown quarter of an hour into quarters of it, hours and totals. Whoever
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
    select date_bin('15 minutes', o.at, timestamptz '2020-01-01 00:00:00+00') as at, o.lane_id, sum(o.duration_ms_sum) as duration_ms_sum, sum(o.sent) as sent,
           sum(o.failed) as failed, sum(o.retrying) as retrying, sum(o.expired) as expired,
           sum(o.cancelled) as cancelled, sum(o.rescued) as rescued, sum(o.late) as late,
           sum(o.pickup_ms_sum) as pickup_ms_sum, outbox.sum_counts(o.durations::bigint[]) as durations,
           outbox.sum_counts(o.pickups::bigint[]) as pickups, outbox.sum_counts(o.arrivals::bigint[]) as arrivals
    from old as o group by 1, 2
), tried as materialized (
    select o.lane_id, a.value ->> 0 as provider, a.value ->> 1 as outcome, a.value ->> 2 as error_class,
           sum((a.value ->> 3)::bigint) as n
    from old as o cross join lateral jsonb_array_elements(o.attempts) as a
    group by 1, 2, 3, 4
), logged as (
    insert into outbox.outcome_log (at, xid, lane_id, ids, lease_nos)
    select o.at, o.xid, o.lane_id, o.ids, o.lease_nos from old as o where o.ids is not null
), quarters as (
    insert into outbox.stat_quarter as q (at, lane_id, sent, failed, retrying, expired, cancelled, rescued, late,
        durations, pickups, arrivals)
    select s.at as at, s.lane_id, sum(s.sent), sum(s.failed), sum(s.retrying), sum(s.expired),
        sum(s.cancelled), sum(s.rescued), sum(s.late), outbox.sum_counts(s.durations)::int[],
        outbox.sum_counts(s.pickups)::int[], outbox.sum_counts(s.arrivals)::int[]
    from summed as s group by 1, 2
    order by 1, 2
    on conflict (at, lane_id) do update
    set sent = q.sent + excluded.sent,
        failed = q.failed + excluded.failed,
        retrying = q.retrying + excluded.retrying,
        expired = q.expired + excluded.expired,
        cancelled = q.cancelled + excluded.cancelled,
        rescued = q.rescued + excluded.rescued,
        late = q.late + excluded.late,
        durations = outbox.add_counts(q.durations, excluded.durations)::int[],
        pickups = outbox.add_counts(q.pickups, excluded.pickups)::int[],
        arrivals = outbox.add_counts(q.arrivals, excluded.arrivals)::int[]
), hours as (
    insert into outbox.stat_hour as h (at, lane_id, sent, failed, retrying, expired, cancelled, rescued, late,
        durations, pickups, arrivals)
    select date_trunc('hour', s.at) as at, s.lane_id, sum(s.sent), sum(s.failed), sum(s.retrying), sum(s.expired),
        sum(s.cancelled), sum(s.rescued), sum(s.late), outbox.sum_counts(s.durations)::int[],
        outbox.sum_counts(s.pickups)::int[], outbox.sum_counts(s.arrivals)::int[]
    from summed as s group by 1, 2
    order by 1, 2
    on conflict (at, lane_id) do update
    set sent = h.sent + excluded.sent,
        failed = h.failed + excluded.failed,
        retrying = h.retrying + excluded.retrying,
        expired = h.expired + excluded.expired,
        cancelled = h.cancelled + excluded.cancelled,
        rescued = h.rescued + excluded.rescued,
        late = h.late + excluded.late,
        durations = outbox.add_counts(h.durations, excluded.durations)::int[],
        pickups = outbox.add_counts(h.pickups, excluded.pickups)::int[],
        arrivals = outbox.add_counts(h.arrivals, excluded.arrivals)::int[]
), per_lane as materialized (
    select s.lane_id, sum(s.duration_ms_sum) as duration_ms_sum, sum(s.sent) as sent, sum(s.failed) as failed,
           sum(s.retrying) as retrying, sum(s.expired) as expired, sum(s.cancelled) as cancelled,
           sum(s.rescued) as rescued, sum(s.late) as late, sum(s.pickup_ms_sum) as pickup_ms_sum,
           outbox.sum_counts(s.durations) as durations, outbox.sum_counts(s.pickups) as pickups,
           (select jsonb_agg(jsonb_build_array(x.provider, x.outcome, x.error_class, x.n))
            from tried as x where x.lane_id = s.lane_id) as attempts
    from summed as s group by s.lane_id
), totals as (
    insert into outbox.stat_total as t (lane_id, duration_ms_sum, sent, failed, retrying, expired, cancelled, rescued,
        late, pickup_ms_sum, durations, pickups, attempts)
    select p.lane_id, p.duration_ms_sum, p.sent, p.failed, p.retrying, p.expired, p.cancelled, p.rescued, p.late,
        p.pickup_ms_sum, p.durations, p.pickups, p.attempts
    from per_lane as p
    order by p.lane_id
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
        durations = outbox.add_counts(t.durations, excluded.durations),
        pickups = outbox.add_counts(t.pickups, excluded.pickups),
        attempts = coalesce((select jsonb_agg(jsonb_build_array(x.provider, x.outcome, x.error_class, x.n))
                             from (select a.value ->> 0 as provider, a.value ->> 1 as outcome, a.value ->> 2 as error_class,
                                          sum((a.value ->> 3)::bigint) as n
                                   from (select jsonb_array_elements(t.attempts)
                                         union all select jsonb_array_elements(excluded.attempts)) as a(value)
                                   group by 1, 2, 3) as x), t.attempts)
)
select count(*) from old

-- End waiting entries whose expires_at has passed: also in paused and held lanes, which no claim
-- ever looks at, and behind the head of their ordering_key. Each leaves a terminal row of history.
-- It begins at `after`: what was ended before that, or delivered in time, cannot be vacuumed while
-- somebody holds a snapshot open. Returns up to when all has been looked at.
with over as materialized (
    select e.id, e.lane_id, e.lease_no, e.series, e.attempt, e.expires_at
    from outbox.entry as e
    where e.expires_at >= %(after)s::timestamptz and e.expires_at <= statement_timestamp() and e.claimed_by is null
    order by e.expires_at
    limit %(limit)s
    for update skip locked
), gone as (
    delete from outbox.entry as e
    where e.id = any(array(select id from over))
), history as (
    insert into outbox.delivery (id, finished_at, epoch, lease_no, series, attempt, terminal, status, tenant_id, lane_id,
        error_class, error_code, error_message)
    select o.id, clock_timestamp(), %(epoch)s, o.lease_no + 1, o.series, o.attempt, true, 'EXPIRED', j.tenant_id, abs(o.lane_id),
        'expired', 'job.expired', 'expires_at passed before it could be delivered'
    from over as o
    cross join lateral (select j.tenant_id from outbox.job as j where j.id = o.id offset 0) as j
), counted as (
    insert into outbox.stat_second (at, epoch, lane_id, expired, ids, lease_nos)
    select date_trunc('second', clock_timestamp()), %(epoch)s, abs(o.lane_id), count(*), array_agg(o.id),
        array_agg(o.lease_no + 1)
    from over as o group by abs(o.lane_id)
)
select count(*) as ended, case when count(*) >= %(limit)s then max(o.expires_at) else statement_timestamp() end as reached
from over as o

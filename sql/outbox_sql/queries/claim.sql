-- Claim due entries of many lanes at once, highest priority first, and return them with their jobs.
-- Input, one element a lane: how many it has room for, and for each priority the floor
-- (available_at, id) that this dispatcher has reached; it starts right behind it, because under a
-- pinned snapshot everything before it is dead index entries that vacuum cannot remove.
-- `crashes_max` 0 leaves suspects of a crash alone, while this dispatcher runs another suspect.
-- Each priority is a CTE of its own, limited by what the ones above left over.
-- statement_timestamp() is the database's clock and, unlike clock_timestamp(), can bound an index scan.
with ask as materialized (
    select a.*
    from unnest(%(lane_ids)s::int[], %(rooms)s::int[],
                %(urgent_at)s::timestamptz[], %(urgent_id)s::bigint[],
                %(high_at)s::timestamptz[], %(high_id)s::bigint[],
                %(normal_at)s::timestamptz[], %(normal_id)s::bigint[],
                %(low_at)s::timestamptz[], %(low_id)s::bigint[])
         as a(lane_id, room, urgent_at, urgent_id, high_at, high_id, normal_at, normal_id, low_at, low_id)
), urgent as materialized (
    select a.lane_id, e.id
    from ask as a
    cross join lateral (
        select e.id
        from outbox.entry as e
        where e.lane_id = a.lane_id and e.priority = 10 and e.claimed_by is null
          and e.crashes <= %(crashes_max)s
          and (e.available_at, e.id) > (a.urgent_at, a.urgent_id) and e.available_at <= statement_timestamp()
        order by e.available_at, e.id
        limit a.room
        for update skip locked) as e
), room_high as materialized (
    select a.*, a.room - coalesce(u.taken, 0) as room_left
    from ask as a
    left join (select lane_id, count(*) as taken from urgent group by lane_id) as u using (lane_id)
), high as materialized (
    select a.lane_id, e.id
    from room_high as a
    cross join lateral (
        select e.id
        from outbox.entry as e
        where e.lane_id = a.lane_id and e.priority = 5 and e.claimed_by is null
          and e.crashes <= %(crashes_max)s
          and (e.available_at, e.id) > (a.high_at, a.high_id) and e.available_at <= statement_timestamp()
        order by e.available_at, e.id
        limit a.room_left
        for update skip locked) as e
), room_normal as materialized (
    select a.lane_id, a.normal_at, a.normal_id, a.low_at, a.low_id, a.room_left - coalesce(h.taken, 0) as room_left
    from room_high as a
    left join (select lane_id, count(*) as taken from high group by lane_id) as h using (lane_id)
), normal as materialized (
    select a.lane_id, e.id
    from room_normal as a
    cross join lateral (
        select e.id
        from outbox.entry as e
        where e.lane_id = a.lane_id and e.priority = 1 and e.claimed_by is null
          and e.crashes <= %(crashes_max)s
          and (e.available_at, e.id) > (a.normal_at, a.normal_id) and e.available_at <= statement_timestamp()
        order by e.available_at, e.id
        limit a.room_left
        for update skip locked) as e
), room_low as materialized (
    select a.lane_id, a.low_at, a.low_id, a.room_left - coalesce(n.taken, 0) as room_left
    from room_normal as a
    left join (select lane_id, count(*) as taken from normal group by lane_id) as n using (lane_id)
), low as materialized (
    select a.lane_id, e.id
    from room_low as a
    cross join lateral (
        select e.id
        from outbox.entry as e
        where e.lane_id = a.lane_id and e.priority = 0 and e.claimed_by is null
          and e.crashes <= %(crashes_max)s
          and (e.available_at, e.id) > (a.low_at, a.low_id) and e.available_at <= statement_timestamp()
        order by e.available_at, e.id
        limit a.room_left
        for update skip locked) as e
), claimed as (
    update outbox.entry as e
    set claimed_by = %(epoch)s,
        claimed_at = statement_timestamp(),
        lease_until = statement_timestamp() + make_interval(secs => %(lease_s)s),
        lease_no = e.lease_no + 1,
        attempt = e.attempt + 1
    -- An array, not a join: the primary key is used whatever the planner believes of the table.
    where e.id = any(array(select id from urgent union all select id from high
                           union all select id from normal union all select id from low))
    returning e.id, e.lane_id, e.lease_no, e.priority, e.series, e.attempt, e.max_attempts, e.crashes,
              e.available_at, e.expires_at, e.claimed_at
)
select c.id, c.lane_id, c.lease_no, c.priority, c.series, c.attempt, c.max_attempts, c.crashes, c.available_at,
       c.expires_at, c.claimed_at, j.job_id, j.tenant_id, j.queue, j.channel, j.created_at, j.traceparent,
       j.test, j.job::text
from claimed as c
cross join lateral (
    select j.job_id, j.tenant_id, j.queue, j.channel, j.created_at, j.traceparent, j.test, j.job
    from outbox.job as j where j.id = c.id offset 0) as j
order by c.priority desc, c.available_at, c.id

create function outbox.in_three_digits(number numeric) returns bigint language sql immutable parallel safe
    return round(number, 2 - floor(log(greatest(number, 1)))::int)::bigint;

-- How many jobs wait, run and lie ahead, by queue, at a cost that does not grow with them.
--
-- While `entry` has no more than `pages_max` pages, all of it is read, and everything is exact. Beyond, and for one
-- queue or one tenant, jobs are counted in the order of claims, up to `exact_max` due ones of a queue and as many
-- delayed ones. Where it has more, the figure is an estimate from a sample of `pages_max` pages, rounded to three
-- digits and never below what was counted; `estimated` names it. One page by chance (the same at each look) of each
-- of so many equal parts of the table, because a queue's jobs lie together: such a run is seen with its share.
--   oldest_at   exact: the first unclaimed entry of each lane and priority
--   active      of a queue with too many due jobs: what is claimed in front of the first unclaimed entry of each
--               lane and priority, or in what was counted
-- Places (lane and priority) are found by a loose index scan, which leaves idle lanes out. What an old snapshot keeps
-- from being vacuumed lies in front of them and has to be walked over: a microsecond for each job that ended since.
-- Whoever finds that too long asks not to `walk`. Then half of `pages_max` are the last ones, where new jobs are while
-- nothing is vacuumed, half a sample of the rest, and all is estimated, the age of the oldest as well.
create function outbox.queue_counts(of_queue text, of_tenant text, walk boolean default true, exact_max int default 10000,
                                    pages_max int default 2000)
    returns table (queue text, waiting bigint, active bigint, delayed bigint, oldest_at timestamptz, estimated text[])
    -- No plan may depend on what the table last looked like.
    language sql stable set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_bitmapscan = off set jit = off
as $$
with recursive lanes as materialized (
    select l.lane_id, l.queue
    from outbox.lane as l
    where (of_queue is null or l.queue = of_queue) and (of_tenant is null or l.tenant_id = of_tenant)
      and outbox.is_test_lane(l.scope) = outbox.in_test_mode()  -- test jobs count for test keys alone
), pages as materialized (
    -- All of the last ones from `body` on, and `parts` of those before.
    select b.n, b.body, least(b.body, case when walk then pages_max else pages_max / 2 end) as parts,
           not walk or b.n <= pages_max and of_queue is null and of_tenant is null as alone
    from (select s.n, case when walk then s.n else greatest(s.n - pages_max / 2, 0) end as body
          from (select pg_relation_size('outbox.entry') / current_setting('block_size')::int as n) as s) as b
), loose as (
    (select e.lane_id, e.priority, e.available_at, e.id, e.claimed_by
     from outbox.entry as e
     where of_queue is null and of_tenant is null and not (select p.alone from pages as p)
     order by e.lane_id, e.priority, e.available_at, e.id
     limit 1)
    union all
    select n.lane_id, n.priority, n.available_at, n.id, n.claimed_by
    from loose as p
    cross join lateral (
        select e.lane_id, e.priority, e.available_at, e.id, e.claimed_by
        from outbox.entry as e
        where (e.lane_id, e.priority) > (p.lane_id, p.priority)
        order by e.lane_id, e.priority, e.available_at, e.id
        limit 1) as n
), probes as materialized (
    -- Its sign beforehand: a product may overflow, so row-level security would keep it out of the index.
    select s.sign * l.lane_id as lane_id, p.priority
    from lanes as l
    cross join (values (1), (-1)) as s(sign)
    cross join unnest(array[0, 1, 5, 10]::smallint[]) as p(priority)
    where (of_queue is not null or of_tenant is not null) and not (select p.alone from pages as p)
), probed as (
    select e.*
    from probes as p
    cross join lateral (
        select e.lane_id, e.priority, e.available_at, e.id, e.claimed_by
        from outbox.entry as e
        where e.lane_id = p.lane_id and e.priority = p.priority
        order by e.available_at, e.id
        limit 1) as e
), place as materialized (
    -- `at`, `id`: its first entry; `open_at`, `open_id`: its first unclaimed one.
    select l.queue, f.lane_id, f.priority, f.available_at as at, f.id,
           case when f.claimed_by is null then f.available_at else u.available_at end as open_at,
           case when f.claimed_by is null then f.id else u.id end as open_id
    from (select * from loose union all select * from probed) as f
    join lanes as l on l.lane_id = abs(f.lane_id)
    left join lateral (
        select e.available_at, e.id
        from outbox.entry as e
        where f.claimed_by is not null and e.lane_id = f.lane_id and e.priority = f.priority and e.claimed_by is null
          and (e.available_at, e.id) > (f.available_at, f.id)
        order by e.available_at, e.id
        limit 1) as u on true
), counted as materialized (
    select q.*, d.waiting, d.active, a.delayed, d.waiting + d.active > exact_max as more_due, a.delayed > exact_max as more_ahead
    from (select p.queue, min(p.open_at) filter (where p.lane_id > 0 and p.open_at <= statement_timestamp()) as oldest_at,
                 array_agg(p.lane_id) as lane_ids, array_agg(p.priority) as priorities, array_agg(p.at) as ats,
                 array_agg(p.id) as ids, array_agg(p.open_at) as open_ats, array_agg(p.open_id) as open_ids
          from place as p group by p.queue) as q
    cross join lateral (
        select count(*) filter (where n.claimed_by is null) as waiting, count(n.claimed_by) as active
        from (select e.claimed_by
              from unnest(q.lane_ids, q.priorities, q.ats, q.ids) as p(lane_id, priority, at, id)
              cross join lateral (
                  select e.claimed_by
                  from outbox.entry as e
                  where e.lane_id = p.lane_id and e.priority = p.priority
                    and (e.available_at, e.id) >= (p.at, p.id) and e.available_at <= statement_timestamp()
                  order by e.available_at, e.id
                  limit exact_max + 1) as e
              limit exact_max + 1) as n) as d
    cross join lateral (
        select count(*) as delayed
        from (select
              from unnest(q.lane_ids, q.priorities) as p(lane_id, priority)
              cross join lateral (
                  select
                  from outbox.entry as e
                  where e.lane_id = p.lane_id and e.priority = p.priority and e.available_at > statement_timestamp()
                  order by e.available_at, e.id
                  limit exact_max + 1) as e
              limit exact_max + 1) as n) as a
), seen as materialized (
    select abs(e.lane_id) as lane_id, b.times,
           count(*) filter (where e.claimed_by is null and e.available_at <= statement_timestamp()) as waiting,
           count(e.claimed_by) as active,
           count(*) filter (where e.claimed_by is null and e.available_at > statement_timestamp()) as delayed,
           min(e.available_at) filter (where e.claimed_by is null and e.lane_id > 0
                                         and e.available_at <= statement_timestamp()) as oldest_at
    from (select p.* from pages as p
          where p.alone or exists (select from counted as c where c.more_due or c.more_ahead)) as p
    cross join lateral (
        select trunc((part + (hashint8(part) + 2147483648) / 4294967296.0) * p.body / p.parts) as page,
               p.body::numeric / p.parts as times
        from generate_series(0, p.parts - 1) as part
        union all
        select page, 1 from generate_series(p.body, p.n - 1) as page) as b
    cross join lateral (
        select e.lane_id, e.claimed_by, e.available_at
        from outbox.entry as e
        where e.ctid >= format('(%s,0)', b.page)::tid and e.ctid < format('(%s,0)', b.page + 1)::tid
        offset 0) as e
    group by 1, 2
), sampled as materialized (
    select l.queue, p.body > p.parts as in_part, sum(s.waiting * s.times)::bigint as waiting,
           sum(s.active * s.times)::bigint as active, sum(s.delayed * s.times)::bigint as delayed,
           min(s.oldest_at) as oldest_at
    from pages as p
    cross join lanes as l
    left join seen as s on s.lane_id = l.lane_id
    group by 1, 2
)
select s.queue,
       coalesce(case when s.in_part then outbox.in_three_digits(s.waiting) else s.waiting end, 0),
       coalesce(case when s.in_part then outbox.in_three_digits(s.active) else s.active end, 0),
       coalesce(case when s.in_part then outbox.in_three_digits(s.delayed) else s.delayed end, 0),
       s.oldest_at,
       case when s.in_part then array['waiting', 'active', 'delayed', 'oldest_waiting_s'] else '{}' end
from pages as p cross join sampled as s
where p.alone
union all
select c.queue,
       case when not c.more_due then c.waiting
            when not s.in_part then s.waiting
            else greatest(c.waiting, outbox.in_three_digits(s.waiting)) end,
       case when not c.more_due then c.active
            when not s.in_part then s.active
            else greatest(c.active, (
                select sum(n.claimed)::bigint
                from unnest(c.lane_ids, c.priorities, c.ats, c.ids, c.open_ats, c.open_ids)
                     as p(lane_id, priority, at, id, open_at, open_id)
                cross join lateral (
                    select count(*) as claimed
                    from outbox.entry as e
                    where e.lane_id = p.lane_id and e.priority = p.priority
                      and (e.available_at, e.id) >= (p.at, p.id) and (e.available_at, e.id) < (p.open_at, p.open_id)) as n
                where p.id <> p.open_id)) end,
       case when not c.more_ahead then c.delayed
            when not s.in_part then s.delayed
            else greatest(c.delayed, outbox.in_three_digits(s.delayed)) end,
       c.oldest_at,
       case when s.in_part
            then case when c.more_due then array['waiting', 'active'] else '{}' end
                 || case when c.more_ahead then array['delayed'] else '{}' end
            else '{}' end
from counted as c
join sampled as s on s.queue = c.queue
$$;
comment on function outbox.queue_counts is 'What waits, runs and lies ahead, by queue, at a bounded cost; `estimated` names the figures that were not counted.';
grant execute on function outbox.queue_counts, outbox.in_three_digits to outbox_api, outbox_dispatcher;

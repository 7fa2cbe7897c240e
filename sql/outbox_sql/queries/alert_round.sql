-- Take the round, unless it is not due or somebody else makes it: no row. Learn the error codes of new
-- dead letters and of held lanes (the margin is for dead letters whose transactions commit late; in the
-- very first round no code is news), and tell what a round looks at beside the figures that /metrics
-- shows. Bounded: the newest dead letters alone. Test jobs' trouble is no alert. One statement, for a fleet that has nothing to do.
with before as (
    select a.dead_letter_seen
    from outbox.alert_round as a
    where a.next_at <= clock_timestamp()
    for update skip locked
), taken as (
    update outbox.alert_round as r
    set next_at = clock_timestamp() + make_interval(secs => %(every_s)s),
        dead_letter_seen = coalesce((select max(d.dead_letter_id) from outbox.dead_letter as d), 0)
    from before as b
    returning b.dead_letter_seen as seen
), learned as (
    insert into outbox.known_error_code (code, at)
    select distinct f.code, case when t.seen is null then '-infinity' else clock_timestamp() end
    from taken as t
    cross join lateral (
        select d.error_code as code from outbox.dead_letter as d
        where d.dead_letter_id > coalesce(t.seen, 0) - 1000 and not d.test
        union
        select l.hold_code from outbox.lane as l where l.held_at is not null and not outbox.is_test_lane(l.scope)) as f
    where f.code is not null
    on conflict (code) do nothing
    returning code, at
)
select (select coalesce(json_object_agg(q.queue, q.n), '{}')::text
        from (select coalesce(n.queue, '') as queue, count(*) as n
              from (select d.queue, d.failed_at, d.test from outbox.dead_letter as d
                    order by d.dead_letter_id desc limit 10000) as n
              where not n.test and n.failed_at > clock_timestamp() - interval '15 minutes' group by 1) as q) as dead_letters,
       (select coalesce(json_agg(c.code), '[]')::text
        from (select k.code
              from (select k.code, k.at from outbox.known_error_code as k
                    union all select l.code, l.at from learned as l) as k
              where k.at > clock_timestamp() - make_interval(secs => %(new_s)s) order by k.at limit 100) as c) as new_codes,
       (select coalesce(json_agg(json_build_object('alert_id', a.alert_id, 'rule', a.rule, 'subject', a.subject,
                                                   'state', a.state, 'streak', a.streak)), '[]')::text
        from outbox.alert as a where a.state <> 'closed') as live,
       exists (select from outbox.alert as a where a.closed_at < clock_timestamp() - interval '90 days') as outlived
from taken

-- Rows of history that one snapshot sees and an older one does not, by (second, id, lease_no), behind the given
-- one: attempts, ends, and new series that were begun after the lease of that number, which is negative then. Counts
-- carry the keys of what they count (stat_second; outcome_log when they are older), so history needs no index by time.
with counted as materialized (
    select s.at, s.ids, s.lease_nos
    from outbox.stat_second as s
    where s.at >= %(from_at)s and s.ids is not null
      and pg_visible_in_snapshot(s.xid, %(seen)s::pg_snapshot) and not pg_visible_in_snapshot(s.xid, %(before)s::pg_snapshot)
    union all
    select l.at, l.ids, l.lease_nos
    from outbox.outcome_log as l
    where l.at >= %(from_at)s
      and pg_visible_in_snapshot(l.xid, %(seen)s::pg_snapshot) and not pg_visible_in_snapshot(l.xid, %(before)s::pg_snapshot)
), page as materialized (
    select c.at as second, k.id, k.lease_no, r.rank
    from counted as c
    cross join lateral unnest(c.ids, c.lease_nos) as k(id, lease_no)
    cross join lateral (select 3 * abs(k.lease_no::bigint) + (k.lease_no < 0)::int as rank) as r
    where (c.at, k.id, r.rank) > (%(after_second)s, %(after_id)s, %(after_rank)s)
    order by c.at, k.id, r.rank
    limit %(rows_max)s
)
select p.id, p.second, p.rank, coalesce(d.finished_at, p.second) as at,
       case when p.lease_no < 0 then 'ENQUEUED' else d.status end as status, d.terminal,
       j.job_id, j.tenant_id, j.queue, j.channel, j.template_code, j.user_id, j.event_id, j.campaign_id, j.test, d.series, d.attempt,
       d.provider, d.error_class, d.error_code, d.duration_ms, d.next_attempt_at
from page as p
left join lateral (select j.* from outbox.job as j where j.id = p.id offset 0) as j on true
left join lateral (select d.* from outbox.delivery as d
                   where d.id = p.id and d.lease_no = p.lease_no and not d.late offset 0) as d on true
order by p.second, p.id, p.rank

-- Jobs that one snapshot sees and an older one does not, in the order of their ids behind `after`. It looks through
-- a bounded number of rows and tells how far it got: whoever calls goes on from there. Rows have the number of
-- their transaction in a column, since xmin may be a savepoint's, of which snapshots know nothing.
with scanned as materialized (
    select j.id, j.xid
    from outbox.job as j
    where j.id > %(after)s
    order by j.id
    limit %(rows_max)s
)
select s.reached, s.more, coalesce(f.id, 0) as id, null::timestamptz as second, 0::bigint as rank,
       outbox.id_time(coalesce(f.id, 0)) as at, case when f.id is not null then 'ENQUEUED' end as status, false as terminal,
       f.job_id, f.tenant_id, f.queue, f.channel, f.template_code, f.user_id, f.event_id, f.campaign_id, f.test, 1 as series,
       0 as attempt, null::text as provider, null::text as error_class, null::text as error_code, null::int as duration_ms,
       f.send_after as next_attempt_at
from (select max(c.id) as reached, count(*) = %(rows_max)s as more from scanned as c) as s
left join lateral (
    select j.*
    from scanned as c
    cross join lateral (select j.* from outbox.job as j where j.id = c.id offset 0) as j
    where pg_visible_in_snapshot(c.xid, %(seen)s::pg_snapshot) and not pg_visible_in_snapshot(c.xid, %(before)s::pg_snapshot)
) as f on true
order by f.id

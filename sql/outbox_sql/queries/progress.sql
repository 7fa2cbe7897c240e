-- Note how far running attempts have come, each in place of what it said before. The fence is that of the record,
-- and the entry stays locked until this is committed: who rescues or ends it comes before or after. What somebody
-- has locked already is left out; a report is worth no wait, and the next one comes. Of an erased person: nothing.
with told as materialized (
    select t.*
    from json_to_recordset(%(reports)s::json) as t(
        id bigint, lease_no int, tenant_id text, done double precision, total double precision, note text)
), standing as materialized (
    select e.id
    from outbox.entry as e
    join told as t on t.id = e.id and t.lease_no = e.lease_no
    where e.id = any(array(select id from told)) and e.claimed_by = %(epoch)s and not e.erased
    order by e.id
    for share of e skip locked
)
insert into outbox.progress as p (id, done, total, lease_no, tenant_id, note)
select t.id, t.done, t.total, t.lease_no, t.tenant_id, t.note
from told as t
join standing as s on s.id = t.id
on conflict (id) do update
set at = clock_timestamp(),
    xid = pg_current_xact_id(),
    done = excluded.done,
    total = excluded.total,
    lease_no = excluded.lease_no,
    note = excluded.note
returning p.id

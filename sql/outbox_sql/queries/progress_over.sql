-- Forget what attempts said that are over.
delete from outbox.progress as p
using unnest(%(ids)s::bigint[], %(lease_nos)s::int[]) as k(id, lease_no)
where p.id = any(%(ids)s::bigint[]) and p.id = k.id and p.lease_no = k.lease_no

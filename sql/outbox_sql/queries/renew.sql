-- Extend the leases of attempts that are still running. Returns those that still stand.
update outbox.entry as e
set lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
from unnest(%(ids)s::bigint[], %(lease_nos)s::int[]) as r(id, lease_no)
where e.id = any(%(ids)s::bigint[]) and e.id = r.id and e.lease_no = r.lease_no and e.claimed_by = %(epoch)s
returning e.id

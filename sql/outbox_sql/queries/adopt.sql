-- Carry attempts that are still running over to their process's new epoch. Only what nobody has
-- rescued meanwhile still carries the old one, so the fence holds. By lease, not by entry: an outcome
-- whose reply was lost may have been stored, and its entry claimed again by the same process.
update outbox.entry as e
set claimed_by = %(new)s
from unnest(%(ids)s::bigint[], %(lease_nos)s::int[]) as k(id, lease_no)
where e.id = any(%(ids)s::bigint[]) and e.id = k.id and e.lease_no = k.lease_no and e.claimed_by = %(old)s
returning e.id, e.lease_no

-- Carry attempts that are still running over to their process's new epoch. Only what nobody has
-- rescued meanwhile still carries the old one, so the fence holds.
update outbox.entry as e
set claimed_by = %(new)s
where e.id = any(%(known)s::bigint[]) and e.claimed_by = %(old)s
returning e.id

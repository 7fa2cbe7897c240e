-- Withdraw jobs by their internal ids: what became of each.
select c.id, c.result from outbox.cancel_jobs(%(ids)s::bigint[], %(actor)s, %(reason)s) as c

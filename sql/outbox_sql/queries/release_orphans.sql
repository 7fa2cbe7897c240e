-- Give back what an epoch has claimed without its process knowing it (a claim whose reply was lost,
-- a prefetch that never started).
update outbox.entry as e
set claimed_by = null,
    claimed_at = null,
    lease_until = null,
    attempt = e.attempt - 1,
    available_at = clock_timestamp()
where e.claimed_by = %(old)s
  and not exists (select from unnest(%(ids)s::bigint[], %(lease_nos)s::int[]) as k(id, lease_no)
                  where k.id = e.id and k.lease_no = e.lease_no)

-- One tenant's lane of a queue: its limits, and what of them is used now.
select l.tenant_id, l.queue, n.weight, n.concurrency_max, n.rate_per_s, n.burst, n.places_taken, n.tokens,
       l.paused_at, l.paused_by, l.held_at, l.hold_code, l.hold_reason
from outbox.lane as l
cross join lateral outbox.limits_now(l.lane_id) as n
where l.tenant_id = %(tenant)s and l.queue = %(queue)s and l.scope = ''

-- Lease parts of what is limited over the whole fleet: places in a lane, tokens of a lane or a destination.
select *
from outbox.lease_limits(%(epoch)s, %(lane_ids)s::int[], %(destinations)s::text[], %(in_use)s::int[], %(wanted)s::int[],
                         %(back)s::float8[])

-- A user's devices, the one that was seen last first.
select d.device_id, d.channel, d.address, d.created_at, d.seen_at
from outbox.device as d
where d.tenant_id = %(tenant)s and d.user_id = %(user_id)s
order by d.seen_at desc, d.device_id

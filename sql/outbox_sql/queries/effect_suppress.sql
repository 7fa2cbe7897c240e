-- Nothing more goes to an address that its provider called dead: a device is forgotten, any other
-- address is suppressed.
with gone as materialized (
    select r.tenant_id, r.channel, r.address, r.code, r.reason
    from json_to_recordset(%(rows)s::json) as r(tenant_id text, channel text, address text, code text, reason text)
), forgotten as (
    delete from outbox.device as d using gone as g
    where d.tenant_id = g.tenant_id and d.channel = g.channel and d.address = g.address
)
insert into outbox.suppression as s (tenant_id, channel, address, code, reason)
select distinct on (g.tenant_id, g.channel, lower(g.address)) g.tenant_id, g.channel, lower(g.address), g.code, g.reason
from gone as g
where g.channel not in ('push', 'browser')
on conflict (tenant_id, channel, address) do update
set code = excluded.code, reason = excluded.reason, created_at = excluded.created_at, expires_at = null
where s.expires_at <= clock_timestamp()

-- Nothing more goes to an address that its provider called dead.
insert into outbox.suppression as s (tenant_id, channel, address, code, reason)
select distinct on (r.tenant_id, r.channel, lower(r.address)) r.tenant_id, r.channel, lower(r.address), r.code, r.reason
from json_to_recordset(%(rows)s::json) as r(tenant_id text, channel text, address text, code text, reason text)
on conflict (tenant_id, channel, address) do update
set code = excluded.code, reason = excluded.reason, created_at = excluded.created_at, expires_at = null
where s.expires_at <= clock_timestamp()

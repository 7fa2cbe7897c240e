-- Nothing more goes to an address that its provider called dead.
insert into outbox.suppression (tenant_id, channel, address, code, reason)
select r.tenant_id, r.channel, lower(r.address), r.code, r.reason
from json_to_recordset(%(rows)s::json) as r(tenant_id text, channel text, address text, code text, reason text)
on conflict (tenant_id, channel, address) do nothing

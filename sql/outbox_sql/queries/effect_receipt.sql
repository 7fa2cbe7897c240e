-- This provider will tell what became of these messages.
insert into outbox.receipt_expected (id, tenant_id, provider_id, provider_message_id)
select r.id, r.tenant_id, r.provider_id, r.provider_message_id
from json_to_recordset(%(rows)s::json) as r(id bigint, tenant_id text, provider_id uuid, provider_message_id text)
on conflict (id) do update
set provider_id = excluded.provider_id, provider_message_id = excluded.provider_message_id,
    expected_at = excluded.expected_at, told = false

-- The inbox's effect: a message, in the transaction that records its delivery. Exactly once.
insert into outbox.inbox_message (id, series, tenant_id, user_id, subject, body, data)
select r.id, r.series, r.tenant_id, r.user_id, r.subject, r.body, r.data_json::jsonb
from json_to_recordset(%(rows)s::json) as r(
    id bigint, series smallint, tenant_id text, user_id text, subject text, body text, data_json text)
on conflict (id, series) do nothing

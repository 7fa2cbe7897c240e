-- A chat has a new id: its recipients are reached there from now on.
update outbox.recipient as r
set telegram_chat_id = m.new, updated_at = clock_timestamp()
from json_to_recordset(%(rows)s::json) as m(tenant_id text, channel text, old text, new text)
where m.channel = 'telegram' and r.tenant_id = m.tenant_id and r.telegram_chat_id = m.old

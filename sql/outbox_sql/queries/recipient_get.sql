-- A recipient, as the directory has it.
select r.tenant_id, r.user_id, r.email, r.phone, r.telegram_chat_id, r.locale, r.timezone,
       r.attributes::text as attributes, r.opt_outs, r.quiet_hours::text as quiet_hours, r.updated_at
from outbox.recipient as r
where r.tenant_id = %(tenant)s and r.user_id = %(user_id)s

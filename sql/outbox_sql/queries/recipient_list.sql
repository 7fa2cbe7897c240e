-- Recipients by the beginning of their id, or by an address. Run it unprepared.
select r.tenant_id, r.user_id, r.email, r.phone, r.telegram_chat_id, r.locale, r.timezone, r.attributes::text as attributes,
       r.opt_outs, r.quiet_hours::text as quiet_hours, r.updated_at
from outbox.recipient as r
where (%(tenant)s::text is null or r.tenant_id = %(tenant)s)
  and (%(wanted)s::text is null or starts_with(r.user_id, %(wanted)s) or lower(r.email) = lower(%(wanted)s)
       or r.phone = %(wanted)s or r.telegram_chat_id = %(wanted)s)
  and (r.tenant_id, r.user_id) > (%(after_tenant)s, %(after_user)s)
order by r.tenant_id, r.user_id
limit %(limit)s

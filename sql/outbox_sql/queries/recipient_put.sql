-- Put a recipient into the directory, whole. `created` tells an insert from an update.
insert into outbox.recipient (tenant_id, user_id, email, phone, telegram_chat_id, locale, timezone, attributes,
    opt_outs, quiet_hours)
values (%(tenant)s, %(user_id)s, %(email)s, %(phone)s, %(telegram_chat_id)s, %(locale)s, %(timezone)s,
    %(attributes)s::jsonb, %(opt_outs)s, %(quiet_hours)s::jsonb)
on conflict (tenant_id, user_id) do update
set email = excluded.email,
    phone = excluded.phone,
    telegram_chat_id = excluded.telegram_chat_id,
    locale = excluded.locale,
    timezone = excluded.timezone,
    attributes = excluded.attributes,
    opt_outs = excluded.opt_outs,
    quiet_hours = excluded.quiet_hours,
    updated_at = clock_timestamp()
returning xmax = 0 as created

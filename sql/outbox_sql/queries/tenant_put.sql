-- Set up a tenant, or change its settings, whole.
insert into outbox.tenant (tenant_id, default_locale, timezone, sender, phone_region, own_providers, send_windows,
    error_rules)
values (%(tenant)s, %(default_locale)s, %(timezone)s, %(sender)s, %(phone_region)s, %(own_providers)s,
    %(send_windows)s::jsonb, %(error_rules)s::jsonb)
on conflict (tenant_id) do update
set default_locale = excluded.default_locale, timezone = excluded.timezone, sender = excluded.sender,
    phone_region = excluded.phone_region, own_providers = excluded.own_providers,
    send_windows = excluded.send_windows, error_rules = excluded.error_rules
returning tenant_id, default_locale, timezone, sender, phone_region, own_providers, send_windows, error_rules, created_at

-- Set up a tenant, or change its settings, whole.
insert into outbox.tenant (tenant_id, default_locale, timezone, sender, phone_region, own_providers)
values (%(tenant)s, %(default_locale)s, %(timezone)s, %(sender)s, %(phone_region)s, %(own_providers)s)
on conflict (tenant_id) do update
set default_locale = excluded.default_locale, timezone = excluded.timezone, sender = excluded.sender,
    phone_region = excluded.phone_region, own_providers = excluded.own_providers
returning tenant_id, default_locale, timezone, sender, phone_region, own_providers, created_at

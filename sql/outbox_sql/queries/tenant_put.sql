-- Set up a tenant, or change its settings.
insert into outbox.tenant (tenant_id, default_locale)
values (%(tenant)s, %(default_locale)s)
on conflict (tenant_id) do update set default_locale = excluded.default_locale
returning tenant_id, default_locale, created_at

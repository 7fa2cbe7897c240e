-- Store a provider, whole; credentials that are not given stay. Another tenant's id changes nothing.
insert into outbox.provider as p (provider_id, tenant_id, channel, kind, name, preference, config, credentials, key_id,
    enabled, receipts)
values (%(provider_id)s, %(tenant)s, %(channel)s, %(kind)s, %(name)s, %(preference)s, %(config)s::jsonb,
    %(credentials)s, %(key_id)s, %(enabled)s, %(receipts)s)
on conflict (provider_id) do update
set channel = excluded.channel, kind = excluded.kind, name = excluded.name, preference = excluded.preference,
    config = excluded.config, enabled = excluded.enabled, receipts = excluded.receipts,
    updated_at = clock_timestamp(),
    credentials = case when %(keep)s then p.credentials else excluded.credentials end,
    key_id = case when %(keep)s then p.key_id else excluded.key_id end
where p.tenant_id = excluded.tenant_id
returning p.provider_id, p.tenant_id, p.channel, p.kind, p.name, p.preference, p.config::text,
    p.credentials, p.key_id, p.enabled, p.receipts, p.created_at, p.updated_at

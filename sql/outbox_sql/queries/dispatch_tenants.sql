-- What a dispatcher keeps of these tenants: their settings, and their providers in order.
select a.tenant_id, t.timezone, t.sender, t.phone_region, coalesce(t.own_providers, false) as own_providers,
       t.send_windows::text as send_windows, t.error_rules::text as error_rules,
       (select coalesce(json_agg(json_build_object(
                   'provider_id', p.provider_id, 'channel', p.channel, 'kind', p.kind, 'name', p.name,
                   'config', p.config, 'credentials', encode(p.credentials, 'base64'), 'key_id', p.key_id,
                   'updated_at', p.updated_at, 'wants_receipts', p.receipts is not null) order by p.preference, p.name), '[]')::text
        from outbox.provider as p where p.tenant_id = a.tenant_id and p.enabled) as providers
from unnest(%(tenants)s::text[]) as a(tenant_id)
left join outbox.tenant as t on t.tenant_id = a.tenant_id

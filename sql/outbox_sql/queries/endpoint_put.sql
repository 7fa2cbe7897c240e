-- Store an endpoint; secrets that are not given stay. Another tenant's id changes nothing.
insert into outbox.endpoint as e (endpoint_id, tenant_id, url, description, event_types, secrets, key_id, enabled)
values (%(endpoint_id)s, %(tenant)s, %(url)s, %(description)s, %(event_types)s, %(secrets)s, %(key_id)s, %(enabled)s)
on conflict (endpoint_id) do update
set url = excluded.url, description = excluded.description, event_types = excluded.event_types,
    enabled = excluded.enabled, updated_at = clock_timestamp(),
    disabled_reason = case when not excluded.enabled then e.disabled_reason end,
    secrets = case when %(keep)s then e.secrets else excluded.secrets end,
    key_id = case when %(keep)s then e.key_id else excluded.key_id end
where e.tenant_id = excluded.tenant_id
returning e.endpoint_id, e.tenant_id, e.url, e.description, e.event_types, e.secrets, e.key_id, e.enabled,
    e.disabled_reason, e.created_at, e.updated_at

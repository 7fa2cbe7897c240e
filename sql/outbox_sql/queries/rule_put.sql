-- Make a rule, or replace it. Another tenant's rule under the same id stays as it is.
insert into outbox.rule as r (rule_id, tenant_id, name, event_type, condition, template_code, channels, delay_s,
    expires_after_s, priority, enabled)
values (%(rule_id)s, %(tenant)s, %(name)s, %(event_type)s, %(condition)s::jsonb, %(template_code)s, %(channels)s,
    %(delay_s)s, %(expires_after_s)s, %(priority)s, %(enabled)s)
on conflict (rule_id) do update
set name = excluded.name,
    event_type = excluded.event_type,
    condition = excluded.condition,
    template_code = excluded.template_code,
    channels = excluded.channels,
    delay_s = excluded.delay_s,
    expires_after_s = excluded.expires_after_s,
    priority = excluded.priority,
    enabled = excluded.enabled,
    updated_at = clock_timestamp()
where r.tenant_id = excluded.tenant_id
returning r.rule_id, r.tenant_id, r.name, r.event_type, r.condition::text as condition, r.template_code, r.channels,
    r.delay_s, r.expires_after_s, r.priority, r.enabled, r.created_at, r.updated_at, xmax = 0 as created

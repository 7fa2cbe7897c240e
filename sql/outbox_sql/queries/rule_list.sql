-- A tenant's rules, by name.
select r.rule_id, r.tenant_id, r.name, r.event_type, r.condition::text as condition, r.template_code, r.channels,
       r.delay_s, r.expires_after_s, r.priority, r.enabled, r.created_at, r.updated_at
from outbox.rule as r
where (%(tenant)s::text is null or r.tenant_id = %(tenant)s)
  and (%(event_type)s::text is null or r.event_type = %(event_type)s)
  and (%(rule_id)s::uuid is null or r.rule_id = %(rule_id)s)
order by r.name, r.rule_id
limit 1000

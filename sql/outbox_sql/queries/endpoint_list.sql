-- Endpoints in the order of their keys; `event_type`: those that get such events, and are on.
select e.endpoint_id, e.tenant_id, e.url, e.description, e.event_types, e.secrets, e.key_id, e.enabled,
       e.disabled_reason, e.created_at, e.updated_at
from outbox.endpoint as e
where (%(tenant)s::text is null or e.tenant_id = %(tenant)s)
  and (%(endpoint_id)s::uuid is null or e.endpoint_id = %(endpoint_id)s)
  and (%(event_type)s::text is null or e.enabled and %(event_type)s = any(e.event_types))
  and (e.tenant_id, e.endpoint_id) > (%(after_tenant)s, %(after_endpoint)s::uuid)
order by e.tenant_id, e.endpoint_id
limit %(limit)s

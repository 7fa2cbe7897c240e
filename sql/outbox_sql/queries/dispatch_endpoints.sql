-- Registered webhook endpoints, as a dispatcher uses them.
select e.endpoint_id, e.tenant_id, e.url, e.secrets, e.key_id, e.enabled
from outbox.endpoint as e
where e.endpoint_id = any(%(endpoints)s::uuid[])

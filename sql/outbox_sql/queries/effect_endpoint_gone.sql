-- An endpoint that answered 410 gets nothing more, until somebody switches it on again.
update outbox.endpoint as e
set enabled = false, disabled_reason = r.reason, updated_at = clock_timestamp()
from json_to_recordset(%(rows)s::json) as r(tenant_id text, endpoint_id uuid, reason text)
where e.endpoint_id = r.endpoint_id and e.tenant_id = r.tenant_id and e.enabled

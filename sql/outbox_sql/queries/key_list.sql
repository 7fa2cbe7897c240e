-- All keys that the caller may see, newest first.
select k.key_id, k.name, k.prefix, k.tenant_id, k.scopes, k.mode, k.created_at, k.expires_at, k.last_used_at, k.revoked_at
from outbox.api_key as k
where %(tenant)s::text is null or k.tenant_id = %(tenant)s
order by k.created_at desc, k.key_id
limit 1000

-- Revoke a key; revoking it again changes nothing.
update outbox.api_key as k
set revoked_at = coalesce(k.revoked_at, clock_timestamp())
where k.key_id = %(key_id)s and (%(tenant)s::text is null or k.tenant_id = %(tenant)s)
returning k.key_id, k.name, k.prefix, k.tenant_id, k.scopes, k.mode, k.created_at, k.expires_at, k.last_used_at, k.revoked_at

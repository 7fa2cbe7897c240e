-- Store a new key by its hash.
insert into outbox.api_key (name, key_sha256, prefix, tenant_id, scopes, mode, expires_at)
values (%(name)s, %(hash)s, %(prefix)s, %(tenant)s, %(scopes)s, %(mode)s, %(expires_at)s)
returning key_id, name, prefix, tenant_id, scopes, mode, created_at, expires_at, last_used_at, revoked_at

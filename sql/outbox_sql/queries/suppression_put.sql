-- Let an address receive nothing more, for ever or until a time.
insert into outbox.suppression (tenant_id, channel, address, code, reason, expires_at)
values (%(tenant)s, %(channel)s, %(address)s, %(code)s, %(reason)s, %(expires_at)s)
on conflict (tenant_id, channel, address) do update
set code = excluded.code, reason = excluded.reason, expires_at = excluded.expires_at, created_at = excluded.created_at
returning tenant_id, channel, address, code, reason, created_at, expires_at

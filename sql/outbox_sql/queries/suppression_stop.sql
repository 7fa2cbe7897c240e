-- Let an address receive nothing more, because its owner has said STOP.
insert into outbox.suppression as s (tenant_id, channel, address, code, reason)
values (%(tenant)s, %(channel)s, %(address)s, 'receipt.opted_out', 'STOP')
on conflict (tenant_id, channel, address) do update
set code = excluded.code, reason = excluded.reason, created_at = clock_timestamp(), expires_at = null
where s.expires_at <= clock_timestamp()

-- Register a device for a user, or take it over from whoever had it; the oldest over a limit go.
-- `created` tells an insert from an update.
with put as (
    insert into outbox.device (tenant_id, user_id, channel, address, p256dh, auth)
    values (%(tenant)s, %(user_id)s, %(channel)s, %(address)s, %(p256dh)s, %(auth)s)
    on conflict (tenant_id, channel, address) do update
    set user_id = excluded.user_id, p256dh = excluded.p256dh, auth = excluded.auth, seen_at = excluded.seen_at
    returning device_id, channel, address, created_at, seen_at, xmax = 0 as created
), dropped as (
    delete from outbox.device as d
    where d.device_id in (
        select o.device_id from outbox.device as o
        where o.tenant_id = %(tenant)s and o.user_id = %(user_id)s and o.channel = %(channel)s
          and o.address <> %(address)s
        order by o.seen_at desc, o.device_id
        offset %(keep)s - 1)
)
select p.device_id, p.channel, p.address, p.created_at, p.seen_at, p.created from put as p

-- What dispatchers keep in memory of tenants: they look again when the version says so.

create function outbox.catalog_changed() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update outbox.control set version = version + 1, catalog = catalog + 1;
    perform pg_notify('outbox_bell', 'control');
    return null;
end
$$;
create trigger catalog_changed after update or delete on outbox.tenant
    for each statement execute function outbox.catalog_changed();
create trigger catalog_changed after update or delete on outbox.endpoint
    for each statement execute function outbox.catalog_changed();
create trigger catalog_changed after insert or update or delete on outbox.provider
    for each statement execute function outbox.catalog_changed();

-- Take in what a provider told of messages that it was given. Each status of a job is stored once,
-- however often it is told; a hard bounce, a complaint and an opt-out suppress the address.
create function outbox.take_receipts(for_tenant text, for_provider uuid, provider_name text, events json)
    returns table (known int, stored int)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    if not outbox.acts_for(for_tenant) then
        raise exception using errcode = 'OBX03', detail = '[]', message = 'another tenant''s provider';
    end if;
    return query
    with found as materialized (
        select j.id, j.channel, e.status, e.at, case when not j.erased then e.detail end as detail, e.hard
        from json_to_recordset(events) as e(job_id uuid, message_id text, status text, at timestamptz, detail text,
                                            hard boolean)
        left join outbox.job_key as k on k.tenant_id = for_tenant and k.job_id = e.job_id
        left join outbox.receipt_expected as x
          on x.provider_id = for_provider and x.tenant_id = for_tenant and x.provider_message_id = e.message_id
        cross join lateral (select j.id, j.channel, j.job ? 'erased' as erased from outbox.job as j
                            where j.id = coalesce(k.id, x.id) and j.tenant_id = for_tenant offset 0) as j
    ), fresh as (
        insert into outbox.receipt (id, tenant_id, status, at, provider, detail)
        select distinct on (f.id, f.status) f.id, for_tenant, f.status, f.at, provider_name, f.detail
        from found as f order by f.id, f.status, f.at
        on conflict (id, status) do nothing
        returning id, status
    ), told as (
        update outbox.receipt_expected as x set told = true
        where x.id in (select f.id from found as f) and not x.told
    ), gone as (
        insert into outbox.suppression as s (tenant_id, channel, address, code, reason)
        select distinct on (f.channel, lower(d.recipient)) for_tenant, f.channel, lower(d.recipient),
            'receipt.' || f.status, f.detail
        from found as f
        join fresh as n on n.id = f.id and n.status = f.status
        cross join lateral (select d.recipient from outbox.delivery as d
                            where d.id = f.id and d.status = 'SENT' and d.recipient is not null
                            order by d.lease_no desc limit 1) as d
        where f.hard and f.status in ('bounced', 'complained', 'opted_out')
        on conflict (tenant_id, channel, address) do update
        set code = excluded.code, reason = excluded.reason, created_at = excluded.created_at, expires_at = null
        where s.expires_at <= clock_timestamp()
    )
    select (select count(*)::int from found), (select count(*)::int from fresh);
end
$$;

-- Mark what nobody told us about for so long.
create function outbox.miss_receipts(overdue_s double precision, batch int) returns int
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    missed int;
begin
    with over as (
        update outbox.receipt_expected as x set told = true
        where x.id in (select o.id from outbox.receipt_expected as o
                       where not o.told and o.expected_at < clock_timestamp() - make_interval(secs => overdue_s)
                       order by o.expected_at limit batch for update skip locked)
        returning x.id, x.tenant_id
    ), marked as (
        insert into outbox.receipt (id, tenant_id, status, at)
        select o.id, o.tenant_id, 'missing', clock_timestamp() from over as o
        on conflict (id, status) do nothing
    )
    select count(*) into missed from over;
    return missed;
end
$$;

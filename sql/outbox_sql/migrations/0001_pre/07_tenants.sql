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
create trigger catalog_changed after insert or update or delete on outbox.provider
    for each statement execute function outbox.catalog_changed();

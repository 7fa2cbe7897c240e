-- Run before every migration: idempotent, and the only part that needs more than outbox_owner.
reset role;
-- The roles of api.md 0. They belong to the whole cluster, so several databases may race for them.
-- outbox_owner owns every object: functions for producers are `security definer`, and must not
-- run with the rights of whoever happened to migrate.
do $$
declare
    name text;
begin
    foreach name in array array['outbox_owner', 'outbox_producer', 'outbox_api',
                                'outbox_dispatcher', 'outbox_auditor', 'outbox_scaler']
    loop
        if not exists (select from pg_roles where rolname = name) then
            begin
                execute format('create role %I nologin', name);
            exception when duplicate_object or unique_violation then
                null;
            end;
        end if;
        if not (select rolsuper from pg_roles where rolname = current_user)
           -- Since Postgres 16, who makes a role may grant it, but is not in it by that.
           and not pg_has_role(current_user, name, 'usage') then
            execute format('grant %I to current_user', name);
        end if;
    end loop;
end
$$;

do $$
begin
    execute format('grant create on database %I to outbox_owner', current_database());
end
$$;
create schema if not exists outbox authorization outbox_owner;
set local role outbox_owner;

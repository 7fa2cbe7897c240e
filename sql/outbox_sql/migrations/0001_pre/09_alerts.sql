-- Alerts of the whole installation: they have no tenant, and are seen by service-wide keys alone.
create table outbox.alert (
    alert_id          bigint      generated always as identity primary key,
    rule              text        not null,
    subject           text        not null,  -- a queue, tenant/queue, an error code, or nothing
    severity          text        not null,
    state             text        not null check (state in ('pending', 'open', 'closed')),
    -- How many rounds in a row have spoken for the next change of state.
    streak            int         not null,
    value             double precision not null,
    since             timestamptz not null default clock_timestamp(),
    opened_at         timestamptz,
    closed_at         timestamptz,
    acknowledged_at   timestamptz,
    acknowledged_by   text
);
create trigger note_change after update of acknowledged_at on outbox.alert
    for each row execute function outbox.note_change();
create unique index alert_live on outbox.alert (rule, subject) where state <> 'closed';

-- Who has locked this row makes the round; nobody waits for it.
create table outbox.alert_round (
    only_row          boolean     primary key default true check (only_row),
    next_at           timestamptz not null default '-infinity',
    dead_letter_seen  bigint      -- null: there was no round yet, so no code is news
);
insert into outbox.alert_round default values;

create table outbox.known_error_code (
    code              text        primary key,
    at                timestamptz not null
);

do $$
declare
    name text;
begin
    foreach name in array array['alert', 'alert_round', 'known_error_code'] loop
        execute format('alter table outbox.%I enable row level security', name);
        execute format('alter table outbox.%I force row level security', name);
        execute format('create policy everything on outbox.%I to outbox_owner, outbox_dispatcher using (true) with check (true)', name);
        execute format('create policy whole_service on outbox.%I to outbox_api
                        using (outbox.sees(''*'')) with check (outbox.sees(''*''))', name);
        execute format('grant select, insert, update on outbox.%I to outbox_dispatcher, outbox_api', name);
    end loop;
end
$$;
grant delete on outbox.alert to outbox_dispatcher, outbox_api;
grant usage on all sequences in schema outbox to outbox_dispatcher, outbox_api;

-- Row-level security and grants (store.md 8): the API sees one tenant per transaction
-- (`outbox.tenant`), dispatchers see all, producers see nothing and may only enqueue.

create function outbox.sees(tenant text) returns boolean
    language sql stable parallel safe
    return current_setting('outbox.tenant', true) in ('*', tenant);

do $$
declare
    name text;
begin
    foreach name in array array['job_key', 'job', 'delivery', 'dead_letter', 'lane', 'receipt', 'operator_action',
        'template', 'recipient', 'device', 'suppression', 'inbox_message', 'sink_message', 'event', 'rule', 'api_key',
        'tenant', 'provider', 'ordering', 'dedup', 'dedup_alias', 'endpoint', 'receipt_expected',
        'replay_run', 'schedule', 'socket', 'socket_message', 'progress']
    loop
        execute format('alter table outbox.%I enable row level security', name);
        execute format('alter table outbox.%I force row level security', name);
        execute format('create policy everything on outbox.%I to outbox_owner, outbox_dispatcher using (true) with check (true)', name);
        -- Of one who sees all, the planner must not expect a two-hundredth: it would sort whole months to show a page
        -- (5 million jobs: 26 s instead of 6 ms), and look at all counts once for each lane (12 s instead of 0.1).
        execute format('create policy own_tenant on outbox.%I to outbox_api
                        using ((select outbox.sees(''*'')) or outbox.sees(tenant_id)) with check (outbox.sees(tenant_id))', name);
    end loop;
end
$$;
-- A test key sees no job in earnest, so it can withdraw, retry or read none; nor what became of one.
alter policy own_tenant on outbox.job
    using (((select outbox.sees('*')) or outbox.sees(tenant_id)) and (test or current_setting('outbox.mode', true) is distinct from 'test'));
alter policy own_tenant on outbox.sink_message
    using (((select outbox.sees('*')) or outbox.sees(tenant_id)) and (test or current_setting('outbox.mode', true) is distinct from 'test'));
-- A function, as its join would spoil the plans of those who need none of it.
create function outbox.sees_job(wanted bigint) returns boolean
    language sql stable parallel safe set search_path = pg_catalog, pg_temp
    return exists (select from outbox.job as j where j.id = wanted);
alter policy own_tenant on outbox.dead_letter
    using (((select outbox.sees('*')) or outbox.sees(tenant_id))
           and (current_setting('outbox.mode', true) is distinct from 'test' or outbox.sees_job(id)));
-- Entries carry no tenant: their lane does.
alter table outbox.entry enable row level security;
alter table outbox.entry force row level security;
create policy everything on outbox.entry to outbox_owner, outbox_dispatcher using (true) with check (true);
create policy own_tenant on outbox.entry to outbox_api
    using (exists (select from outbox.lane as l where l.lane_id = abs(entry.lane_id)));
alter table outbox.ordering_gap enable row level security;
alter table outbox.ordering_gap force row level security;
create policy everything on outbox.ordering_gap to outbox_owner, outbox_dispatcher using (true) with check (true);
create policy own_tenant on outbox.ordering_gap to outbox_api
    using (exists (select from outbox.ordering as o where o.ordering_id = ordering_gap.ordering_id));
-- Nor do counts; those of outcomes that came too late have no lane either.
do $$
declare
    name text;
begin
    foreach name in array array['stat_second', 'stat_quarter', 'stat_hour', 'stat_total', 'outcome_log'] loop
        execute format('alter table outbox.%I enable row level security', name);
        execute format('alter table outbox.%I force row level security', name);
        execute format('create policy everything on outbox.%I to outbox_owner, outbox_dispatcher using (true) with check (true)', name);
        execute format('create policy own_tenant on outbox.%I to outbox_api
                        using ((select outbox.sees(''*'')) or exists (select from outbox.lane as l where l.lane_id = %I.lane_id))',
                       name, name);
    end loop;
end
$$;
-- Processes of the API are the service's: only a transaction of all tenants sees or writes them.
alter table outbox.api_process enable row level security;
alter table outbox.api_process force row level security;
create policy everything on outbox.api_process to outbox_owner, outbox_dispatcher using (true) with check (true);
create policy of_the_service on outbox.api_process to outbox_api
    using (outbox.sees('*')) with check (outbox.sees('*'));
-- Before a key is known there is no tenant: the API looks keys up by hash through a function.
create function outbox.authenticate(hash bytea)
    returns table (key_id uuid, name text, tenant_id text, scopes text[], mode text, expires_at timestamptz)
    language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    with used as (
        update outbox.api_key as k set last_used_at = clock_timestamp()
        where k.key_sha256 = hash and (k.last_used_at is null or k.last_used_at < clock_timestamp() - interval '1 minute')
    )
    select k.key_id, k.name, k.tenant_id, k.scopes, k.mode, k.expires_at from outbox.api_key as k
    where k.key_sha256 = hash and k.revoked_at is null and (k.expires_at is null or k.expires_at > clock_timestamp())
$$;

-- How far the schema has come: what a process compares with what its code knows. A `post` that depends
-- on a `pre` stands for it in Alembic's table.
create function outbox.schema_revisions(out pre int, out post int)
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select coalesce(max(left(v.version_num, 4)::int), 0),
           coalesce(max(left(v.version_num, 4)::int) filter (where right(v.version_num, 5) = '_post'), 0)
    from outbox.alembic_version as v
$$;

revoke all on all functions in schema outbox from public;
-- What later migrations add as well.
alter default privileges for role outbox_owner revoke execute on functions from public;
grant usage on schema outbox to outbox_producer, outbox_api, outbox_dispatcher, outbox_auditor;

grant execute on function outbox.enqueue, outbox.enqueue_many, outbox.enqueue_v1, outbox.enqueue_many_v1, outbox.uuid7,
    outbox.idempotent_job_id to outbox_producer, outbox_api, outbox_dispatcher;

grant select on outbox.notification, outbox.notification_delivery, outbox.notification_history,
    outbox.notification_replay, outbox.notification_trouble, outbox.notification_waiting, outbox.notification_count, outbox.notification_backlog
    to outbox_auditor;
grant execute on function outbox.address_hash, outbox.id_of, outbox.from_priority, outbox.id_time, outbox.id_floor,
    outbox.live_status, outbox.waits_for, outbox.ended_status, outbox.accepted_status,
    outbox.quantile_s, outbox.arrival_bounds_s, outbox.pickup_bounds_s to outbox_auditor;

-- An autoscaler sees this view and nothing else.
grant usage on schema outbox to outbox_scaler;
grant select on outbox.queue_backlog to outbox_scaler;

grant execute on all functions in schema outbox to outbox_dispatcher;
grant select, insert, update, delete on all tables in schema outbox to outbox_dispatcher;
revoke update, delete on outbox.operator_action, outbox.delivery, outbox.job from outbox_dispatcher;
-- Nor by way of a partition, which has no row-level security of its own.
do $$
declare
    child regclass;
begin
    for child in select i.inhrelid::regclass from pg_inherits as i
                 where i.inhparent in ('outbox.job'::regclass, 'outbox.delivery'::regclass, 'outbox.job_key'::regclass)
    loop
        execute format('revoke all on %s from outbox_dispatcher', child);
    end loop;
end
$$;
revoke all on outbox.api_key from outbox_dispatcher;
revoke insert, update, delete on outbox.setting from outbox_dispatcher;
-- Functions of the owner see to these.
revoke all on outbox.retiring, outbox.chore from outbox_dispatcher;
revoke insert, update, delete on outbox.api_process from outbox_dispatcher;
grant usage on all sequences in schema outbox to outbox_dispatcher, outbox_api;

grant execute on function outbox.find_job, outbox.cancel_jobs, outbox.retry_job, outbox.promote_job,
    outbox.release_job, outbox.plan_replay, outbox.begin_replay, outbox.stop_replay, outbox.take_receipts, outbox.recent_payloads, outbox.address_user, outbox.set_paused,
    outbox.set_lane_limits, outbox.set_destination, outbox.limits_now, outbox.list_destinations,
    outbox.schema_revisions, outbox.unseen_by, outbox.erase_recipient, outbox.authenticate, outbox.sees, outbox.sees_job, outbox.current_status,
    outbox.live_status, outbox.waits_for, outbox.ended_status, outbox.accepted_status, outbox.whole_job, outbox.from_priority,
    outbox.to_priority, outbox.id_time, outbox.id_floor, outbox.ring, outbox.partition_days_left, outbox.days_of,
    outbox.make_partitions, outbox.retention_lag, outbox.clean_jobs, outbox.address_hash, outbox.to_time, outbox.uuid5, outbox.pointer,
    outbox.in_test_mode, outbox.is_test_lane, outbox.told_of, outbox.told_of_person, outbox.differing to outbox_api;
grant select on outbox.job_key, outbox.job, outbox.entry, outbox.delivery, outbox.dead_letter, outbox.lane,
    outbox.receipt, outbox.operator_action, outbox.stat_second, outbox.stat_quarter, outbox.stat_hour, outbox.stat_total,
    outbox.outcome_log,
    outbox.dispatcher, outbox.handler, outbox.setting, outbox.queue_pause, outbox.control, outbox.ordering,
    outbox.ordering_gap, outbox.replay_run, outbox.progress,
    outbox.api_notification, outbox.api_notification_delivery, outbox.api_notification_history to outbox_api;
grant select, insert, update, delete on outbox.template, outbox.recipient, outbox.device, outbox.suppression,
    outbox.inbox_message, outbox.sink_message, outbox.event, outbox.rule, outbox.api_key, outbox.tenant,
    outbox.provider, outbox.endpoint, outbox.schedule, outbox.api_process, outbox.socket,
    outbox.socket_message to outbox_api;
grant insert on outbox.operator_action to outbox_api;
alter view outbox.queue_now set (security_invoker = true);
grant select on outbox.queue_now to outbox_api;

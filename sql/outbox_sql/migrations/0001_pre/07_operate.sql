-- What operators and producers may do to jobs that were accepted. Each is one transaction, written
-- down in operator_action; `tenant` limits it (null: service-wide).

create function outbox.find_job(tenant text, wanted uuid) returns bigint
    language sql stable
    return (select j.id from outbox.job_key as k join outbox.job as j on j.id = k.id
            where k.job_id = wanted and (k.tenant_id = tenant or tenant is null) limit 1);

-- These functions run with the owner's rights, past row-level security: so each asks whether the
-- caller's transaction acts for the tenant. Nobody but the API names one; '*' is service-wide.
create function outbox.acts_for(tenant text) returns boolean
    language sql stable parallel safe
    return coalesce(current_setting('outbox.tenant', true), '') in ('', '*', tenant);

-- Withdraw jobs. Waiting ones end now; those that are processing end after their attempt. One that failed
-- and keeps the followers of its ordering_key back is given up: they are released.
create function outbox.cancel_jobs(ids bigint[], actor text, reason text default null)
    returns table (id bigint, result text)  -- cancelled, processing, released (it had failed), ended
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    at timestamptz := clock_timestamp();
begin
    return query
    with wanted as materialized (
        select e.id, e.claimed_by, outbox.live_status(e.claimed_by, e.available_at, e.waits) as status
        from outbox.entry as e
        where e.id = any(ids)
          and exists (select from outbox.job as j where j.id = e.id and outbox.acts_for(j.tenant_id))
        order by e.id for update
    ), gone as (
        delete from outbox.entry as e using wanted as w
        where e.id = w.id and w.claimed_by is null
        returning e.id, e.lane_id, e.lease_no, e.series, e.attempt
    ), marked as (
        update outbox.entry as e set cancel = true from wanted as w
        where e.id = w.id and w.claimed_by is not null
        returning e.id
    ), told as (
        insert into outbox.delivery (id, finished_at, lease_no, series, attempt, terminal, status, tenant_id, lane_id,
            error_class, error_code, error_message)
        select g.id, at, g.lease_no + 1, g.series, g.attempt, true, 'CANCELLED', j.tenant_id, abs(g.lane_id),
            'cancelled', 'job.cancelled', reason
        from gone as g cross join lateral (select j.tenant_id from outbox.job as j where j.id = g.id offset 0) as j
    ), counted as (
        -- (By the clock of now: locks may have been waited for.)
        insert into outbox.stat_second (at, lane_id, cancelled, ids, lease_nos)
        select date_trunc('second', clock_timestamp()), abs(g.lane_id), count(*), array_agg(g.id), array_agg(g.lease_no + 1)
        from gone as g group by abs(g.lane_id)
    ), released as (
        update outbox.ordering_gap as o set dead_id = null from unnest(ids) as i(id)
        where o.dead_id = i.id
          and exists (select from outbox.job as j where j.id = i.id and outbox.acts_for(j.tenant_id))
        returning i.id
    ), logged as (
        insert into outbox.operator_action (actor, action, tenant_id, id, detail)
        select actor, 'cancel', j.tenant_id, w.id, jsonb_strip_nulls(jsonb_build_object('reason', reason,
            'before', jsonb_build_object('status', w.status),
            'after', jsonb_build_object('status', w.becomes)))
        from (select w.id, w.status, case when w.claimed_by is null then 'cancelled' else 'cancelled after its attempt' end as becomes
              from wanted as w
              union all select r.id, 'failed, keeping back', 'failed' from released as r) as w
        cross join lateral (select j.tenant_id from outbox.job as j where j.id = w.id offset 0) as j
    )
    select i.id, case when g.id is not null then 'cancelled' when m.id is not null then 'processing'
                      when r.id is not null then 'released' else 'ended' end
    from unnest(ids) as i(id) left join gone as g on g.id = i.id left join marked as m on m.id = i.id
    left join released as r on r.id = i.id;
end
$$;

-- A new series for a failed job: the lease number goes on, so that no outcome of an older series
-- can ever match.
create function outbox.retry_job(
    wanted bigint, actor text, action text default 'retry', dead_letter bigint default null, note jsonb default '{}'
) returns text  -- retried, or why not: live, not failed, expired, gone (its dead letter outlived it)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    last record;
    j outbox.job;
    lane int;
    key_of bigint;
    place_of bigint;
begin
    select * into j from outbox.job as o where o.id = wanted for key share;  -- clean_jobs must not delete it now
    if j.id is null then
        return 'gone';
    elsif exists (select from outbox.entry as e where e.id = wanted) then
        return 'live';
    elsif j.job ? 'erased' and outbox.acts_for(j.tenant_id) then
        return 'erased';
    end if;
    select d.series, d.status, (select max(m.lease_no) from outbox.delivery as m where m.id = wanted) as lease_no
    into last
    from outbox.delivery as d where d.id = wanted and d.terminal and not d.late order by d.series desc limit 1;
    if not outbox.acts_for(j.tenant_id) or last.status is distinct from 'FAILED' then
        return 'not failed';
    end if;
    if j.expires_at <= clock_timestamp() then
        return 'expired';
    end if;
    lane := outbox.lane_of(j.tenant_id, j.queue, case when j.test then 'test' else '' end);
    if j.job ? 'ordering_key' then
        select r.lane_id, r.ordering_id, r.place into lane, key_of, place_of
        from outbox.reorder(wanted, j.tenant_id, j.queue,
                            case when j.test then outbox.test_key(j.job ->> 'ordering_key') else j.job ->> 'ordering_key' end,
                            lane) as r;
    end if;
    insert into outbox.entry (id, available_at, expires_at, lane_id, priority, series, lease_no, max_attempts,
        ordering_id, place)
    values (wanted, clock_timestamp(), j.expires_at, lane, j.priority, last.series + 1,
            last.lease_no, (j.job ->> 'max_attempts')::smallint, key_of, place_of)
    on conflict (id) do nothing;
    if not found then
        return 'live';
    end if;
    update outbox.dead_letter as d set replayed_at = clock_timestamp(), replayed_by = actor
    where d.id = wanted and d.series = last.series and d.replayed_at is null
      and (dead_letter is null or d.dead_letter_id = dead_letter);
    insert into outbox.stat_second (at, lane_id, ids, lease_nos)
    values (date_trunc('second', clock_timestamp()), abs(lane), array[wanted], array[-last.lease_no]);
    insert into outbox.operator_action (actor, action, tenant_id, id, detail)
    values (actor, action, j.tenant_id, wanted, note || jsonb_build_object('series', last.series + 1,
        'before', jsonb_build_object('status', 'failed'), 'after', jsonb_build_object('status', 'pending')));
    return 'retried';
end
$$;

-- Don't wait for send_after, a backoff or a snooze. Nobody overtakes the head of an ordering_key.
create function outbox.promote_job(wanted bigint, actor text) returns text  -- promoted, processing, due, follows, ended
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    e outbox.entry;
begin
    select * into e from outbox.entry as x
    where x.id = wanted
      and exists (select from outbox.job as j where j.id = x.id and outbox.acts_for(j.tenant_id))
    for update;
    if e.id is null then
        return 'ended';
    elsif e.claimed_by is not null then
        return 'processing';
    elsif e.lane_id < 0 then
        return 'follows';
    elsif e.available_at <= clock_timestamp() then
        return 'due';
    end if;
    update outbox.entry as x set available_at = clock_timestamp(), waits = 0 where x.id = wanted;
    insert into outbox.operator_action (actor, action, tenant_id, id, detail)
    select actor, 'promote', j.tenant_id, wanted, jsonb_build_object('series', e.series,
        'before', jsonb_build_object('status', outbox.live_status(null, e.available_at, e.waits), 'due_at', e.available_at),
        'after', jsonb_build_object('status', 'pending'))
    from outbox.job as j where j.id = wanted;
    return 'promoted';
end
$$;

-- Send what is held because nobody knows whether it was delivered. (Other holds end by themselves.)
create function outbox.release_job(wanted bigint, actor text) returns text  -- released, not held, ended
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    e record;
begin
    select x.id, x.claimed_by, l.tenant_id, l.queue, l.scope, (select j.test from outbox.job as j where j.id = x.id) as test
    into e
    from outbox.entry as x join outbox.lane as l on l.lane_id = x.lane_id
    where x.id = wanted and outbox.acts_for(l.tenant_id)
    for update of x;
    if e.id is null then
        return 'ended';
    elsif e.scope not in ('ambiguous', 'test:ambiguous') or e.claimed_by is not null then
        return 'not held';
    end if;
    update outbox.entry as x
    set lane_id = outbox.lane_of(e.tenant_id, e.queue, case when e.test then 'test' else '' end), available_at = clock_timestamp(), waits = 0
    where x.id = wanted;
    insert into outbox.operator_action (actor, action, tenant_id, id, detail)
    values (actor, 'release', e.tenant_id, wanted,
            '{"before": {"status": "held"}, "after": {"status": "pending"}}');
    return 'released';
end
$$;

create function outbox.next_version() returns bigint
    language sql volatile
    as $$ update outbox.control set version = version + 1 returning version $$;

-- Pause or resume a queue (tenant null: for every tenant, also those to come) or one lane. They are two
-- pauses: who resumes the queue leaves those lanes paused that were paused by themselves, and no lane
-- goes on while its queue is paused. Returns the version that every live dispatcher must have seen before
-- the pause holds.
create function outbox.set_paused(
    for_queue text, for_tenant text, paused boolean, actor text, reason text default null
) returns bigint
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    now_version bigint := outbox.next_version();
    of_queue outbox.queue_pause;
    was_paused boolean := case when for_tenant is null
        then exists (select from outbox.queue_pause as q where q.queue = for_queue)
        else exists (select from outbox.lane as l where l.queue = for_queue and l.tenant_id = for_tenant
                       and l.scope = '' and l.own_paused_at is not null) end;
begin
    if not outbox.acts_for(coalesce(for_tenant, '*')) then
        raise exception using errcode = 'OBX03', detail = '[]',
            message = 'a whole queue, or another tenant''s lane, needs a service-wide key';
    end if;
    if for_tenant is null and paused then
        insert into outbox.queue_pause (queue, paused_by) values (for_queue, actor) on conflict (queue) do nothing;
    elsif for_tenant is null then
        delete from outbox.queue_pause as q where q.queue = for_queue;
    else
        perform outbox.lane_of(for_tenant, for_queue);
        select q.* into of_queue from outbox.queue_pause as q where q.queue = for_queue;
        if of_queue.queue is not null and not paused then
            raise exception using errcode = 'OBX04', detail = '[]',
                message = format('the whole queue is paused, by %s: its lanes go on when that is resumed', of_queue.paused_by);
        end if;
    end if;
    update outbox.lane as l
    set paused_at = case when paused then coalesce(l.paused_at, clock_timestamp())
                         when for_tenant is null then l.own_paused_at end,
        paused_by = case when paused then coalesce(l.paused_by, actor)
                         when for_tenant is null then l.own_paused_by end,
        own_paused_at = case when for_tenant is null then l.own_paused_at
                             when paused then coalesce(l.own_paused_at, clock_timestamp()) end,
        own_paused_by = case when for_tenant is null then l.own_paused_by when paused then coalesce(l.own_paused_by, actor) end,
        version = now_version
    where l.queue = for_queue and (for_tenant is null or l.tenant_id = for_tenant);
    insert into outbox.operator_action (actor, action, tenant_id, detail)
    values (actor, case when paused then 'pause' else 'resume' end, coalesce(for_tenant, '*'),
            jsonb_strip_nulls(jsonb_build_object('queue', for_queue, 'reason', reason,
                'before', jsonb_build_object('paused', was_paused), 'after', jsonb_build_object('paused', paused))));
    perform pg_notify('outbox_bell', 'control');
    return now_version;
end
$$;

-- Dispatchers that may still start something under settings older than this version.
create function outbox.unseen_by(wanted bigint) returns int
    language sql volatile security definer set search_path = pg_catalog, pg_temp
    as $$ select count(*)::int from outbox.dispatcher as d
          where not d.fenced and d.rescued_at is null and d.seen_version < wanted
            and d.heartbeat_at > clock_timestamp() - make_interval(secs => d.lease_s) $$;

-- Of meta only what the contract names: further keys are the producer's own, and may be anything.
create function outbox.plain_meta(job jsonb) returns jsonb
    language sql immutable parallel safe
    return case when jsonb_typeof(job -> 'meta') = 'object' then jsonb_build_object('meta',
        (select coalesce(jsonb_object_agg(m.key, m.value), '{}') from jsonb_each(job -> 'meta') as m
         where m.key in ('event_type', 'event_id', 'campaign_id', 'priority'))) else '{}' end;

-- By which name the directory knows an address that belongs to no user: for what it has opted out of.
create function outbox.address_user(channel text, address text) returns text
    language sql immutable parallel safe
    return left(channel || ':' || lower(address), 128);

-- Erase a person: personal data goes, user_id becomes a pseudonym everywhere, hashes stay. It looks
-- through all jobs that are kept for those that had the address alone: no index knows it, and
-- nobody is erased often. What attempts that are running write later is erased as it is recorded.
create function outbox.erase_recipient(for_tenant text, for_user text, actor text)
    returns table (pseudonym text, jobs int, cancelled int)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
declare
    alias text := 'erased:' || encode(substr(sha256((select s.address_key from outbox.setting as s)
                    || convert_to(for_tenant || ' ' || for_user, 'UTF8')), 1, 12), 'hex');
    known_addresses text[];
    ids bigint[];
    stopped int;
    devices int;
    messages int;
begin
    if not outbox.acts_for(for_tenant) then
        raise exception using errcode = 'OBX03', detail = '[]', message = 'another tenant''s recipient';
    end if;
    known_addresses := array_remove(array[]::text[]
        || (select array[lower(r.email), lower(r.phone), lower(r.telegram_chat_id)]
            from outbox.recipient as r where r.tenant_id = for_tenant and r.user_id = for_user)
        || array(select lower(d.address) from outbox.device as d
                 where d.tenant_id = for_tenant and d.user_id = for_user), null);
    ids := array(
        select j.id from outbox.job as j where j.tenant_id = for_tenant and j.user_id in (for_user, alias)
        union
        select d.id from outbox.delivery as d
        where d.tenant_id = for_tenant
          and d.recipient_hash = any(array(select outbox.address_hash(a) from unnest(known_addresses) as a))
        union
        select j.id from outbox.job as j
        where cardinality(known_addresses) > 0
          and j.tenant_id = for_tenant and lower(j.job ->> 'to') = any(known_addresses));
    select count(*) filter (where c.result = 'cancelled') into stopped
    from outbox.cancel_jobs(ids, actor, 'recipient erased') as c;
    -- What is left of these is running. Its outcome waits for this row, or this waited for it.
    update outbox.entry as e set erased = true where e.id = any(ids);
    delete from outbox.progress as p where p.id = any(ids);
    update outbox.job as j
    set user_id = case when j.user_id is not null then alias end,
        job = (j.job - array['to', 'subject', 'content', 'headers', 'attachments', 'data', 'payload', 'user_id', 'idempotency_key',
                         'ordering_key', 'dedup_key'])
              || case when j.user_id is not null then jsonb_build_object('user_id', alias) else '{}' end
              || jsonb_build_object('data', '{}'::jsonb, 'erased', true)
              || outbox.plain_meta(j.job)
    where j.id = any(ids);
    update outbox.delivery as d
    set recipient = null, subject = null, content = null, provider_message_id = null,
        error_message = case when d.error_message is not null then 'erased' end
    where d.id = any(ids);
    update outbox.dead_letter as d
    set job = (d.job - array['to', 'subject', 'content', 'headers', 'attachments', 'data', 'payload', 'idempotency_key', 'ordering_key',
                             'dedup_key'])
              || jsonb_build_object('user_id', alias, 'erased', true) || outbox.plain_meta(d.job),
        error_message = 'erased'
    where d.job is not null
      -- Dead letters outlive their jobs.
      and (d.id = any(ids) or d.tenant_id = for_tenant and (d.job ->> 'user_id' = for_user
                                                            or lower(d.job ->> 'to') = any(known_addresses)));
    update outbox.dead_letter as d set raw_value = 'erased'
    where d.tenant_id = for_tenant and d.raw_value is not null
      and (position(for_user in d.raw_value) > 0
           or exists (select from unnest(known_addresses) as a where position(a in lower(d.raw_value)) > 0));
    update outbox.receipt as r set detail = null where r.id = any(ids);
    update outbox.receipt_expected as r set provider_message_id = null, told = true where r.id = any(ids);
    delete from outbox.inbox_message as m where m.tenant_id = for_tenant and m.user_id = for_user;
    get diagnostics messages = row_count;
    delete from outbox.sink_message as m where m.tenant_id = for_tenant
        and (lower(m.recipient) = any(known_addresses) or m.recipient = for_user
             or m.job_id in (select j.job_id from outbox.job as j where j.id = any(ids)));
    -- Who must not be written to stays so, under a keyed hash of the address (dispatch_recipients.sql).
    with gone as (
        delete from outbox.suppression as s
        where s.tenant_id = for_tenant and lower(s.address) = any(known_addresses)
        returning s.channel, s.address, s.code, s.created_at, s.expires_at)
    insert into outbox.suppression (tenant_id, channel, address, code, created_at, expires_at)
    select for_tenant, g.channel, 'erased:' || to_hex(outbox.address_hash(g.address)), g.code, g.created_at, g.expires_at
    from gone as g
    on conflict (tenant_id, channel, address) do update
    set code = excluded.code, created_at = excluded.created_at, expires_at = excluded.expires_at;
    -- What a provider said of an address may have become the reason of a hold.
    update outbox.lane as l set hold_reason = 'erased'
    where l.tenant_id = for_tenant
      and exists (select from unnest(known_addresses) as a where position(a in lower(l.hold_reason)) > 0);
    -- What was to go to that person by the clock does so no more.
    update outbox.schedule as s
    set enabled = false, last_error = 'Its recipient was erased', last_error_at = clock_timestamp(),
        job = (s.job - array['to', 'subject', 'content', 'headers', 'attachments', 'data', 'payload', 'idempotency_key',
                             'ordering_key', 'dedup_key'])
              || jsonb_build_object('user_id', alias, 'data', '{}'::jsonb) || outbox.plain_meta(s.job)
    where s.tenant_id = for_tenant
      and (s.job ->> 'user_id' = for_user
           or exists (select from jsonb_array_elements_text(case jsonb_typeof(s.job -> 'to')
                          when 'array' then s.job -> 'to' else jsonb_build_array(s.job -> 'to') end) as t(address)
                      where lower(t.address) = any(known_addresses)));
    update outbox.event as e set user_id = alias, data = '{}' where e.tenant_id = for_tenant and e.user_id = for_user;
    delete from outbox.device as d where d.tenant_id = for_tenant and d.user_id = for_user;
    get diagnostics devices = row_count;
    delete from outbox.recipient as r
    where r.tenant_id = for_tenant
      and (r.user_id = for_user
           or r.user_id in (select outbox.address_user(c, a) from unnest(known_addresses) as a,
                                   unnest(array['email', 'sms', 'telegram']) as c));
    perform set_config('outbox.changes', '', true);  -- it says by itself what is gone
    insert into outbox.operator_action (actor, action, tenant_id, detail)
    values (actor, 'erase', for_tenant, jsonb_build_object('pseudonym', alias, 'jobs', cardinality(ids),
            'before', jsonb_build_object('jobs_of_the_person', cardinality(ids), 'waiting', coalesce(stopped, 0),
                                         'addresses', cardinality(known_addresses), 'devices', devices, 'inbox_messages', messages),
            'after', jsonb_build_object('jobs_of_the_person', 0, 'waiting', 0, 'addresses', 0, 'devices', 0, 'inbox_messages', 0)));
    return query select alias, cardinality(ids), coalesce(stopped, 0);
end
$$;

-- Whether a job's recipient was erased, for outcomes that came too late to find an entry which says so. An
-- erasure that is running is waited for.
create function outbox.is_erased(wanted bigint) returns boolean
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    said boolean;
begin
    select j.job ? 'erased' into said from outbox.job as j where j.id = wanted for share;
    return coalesce(said, false);
end
$$;

-- Hold a lane (scope '') or a part of it, until a probe succeeds or somebody mends it. Returns the lane.
create function outbox.hold_lane(
    for_tenant text, for_queue text, for_scope text, code text, reason text, first_probe_s double precision
) returns int
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    held int;
    main int := outbox.lane_of(for_tenant, for_queue);
begin
    -- A probe that failed leaves the hold as it is, and the way free for the next one.
    update outbox.lane as l set probe_until = null
    where l.tenant_id = for_tenant and l.queue = for_queue and l.scope = for_scope and l.held_at is not null
    returning l.lane_id into held;
    if held is not null then
        return held;
    end if;
    insert into outbox.lane as l (tenant_id, queue, scope, paused_at, paused_by, own_paused_at, own_paused_by, weight, held_at,
        hold_code, hold_reason, probe_s, probe_at, version)
    select m.tenant_id, m.queue, for_scope, m.paused_at, m.paused_by, m.own_paused_at, m.own_paused_by, m.weight,
        clock_timestamp(), code, reason, greatest(first_probe_s, 1), clock_timestamp() + make_interval(secs => first_probe_s), outbox.next_version()
    from outbox.lane as m where m.lane_id = main
    on conflict (tenant_id, queue, scope) do update
    set held_at = excluded.held_at, hold_code = excluded.hold_code, hold_reason = excluded.hold_reason,
        probe_s = excluded.probe_s, probe_at = excluded.probe_at, probe_until = null, version = excluded.version
    returning l.lane_id into held;
    insert into outbox.operator_action (actor, action, tenant_id, detail)
    values ('outbox', 'hold', for_tenant, jsonb_build_object('queue', for_queue, 'scope', for_scope, 'code', code));
    perform pg_notify('outbox_bell', 'control');
    return held;
end
$$;

create function outbox.end_hold(held int) returns void
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
begin
    with opened as (
        update outbox.lane as l
        set held_at = null, hold_code = null, hold_reason = null, probe_s = null, probe_at = null,
            probe_until = null, version = outbox.next_version()
        where l.lane_id = held and l.held_at is not null
        returning l.tenant_id, l.queue, l.scope
    )
    insert into outbox.operator_action (actor, action, tenant_id, detail)
    select 'outbox', 'unhold', o.tenant_id, jsonb_build_object('queue', o.queue, 'scope', o.scope) from opened as o;
    perform pg_notify('outbox_bell', 'control');
end
$$;

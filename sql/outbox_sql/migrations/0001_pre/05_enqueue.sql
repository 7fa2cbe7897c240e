-- The one way in. HTTP, the Python library and the SQL faces all end in enqueue_many_v1, so there
-- is one validation and one idempotency (store.md 7).
--
-- SQLSTATEs: OBX01 a job breaks the contract, OBX02 a job_id was accepted before with other
-- content, OBX03 the role may not act for the tenant. DETAIL is a JSON list.

create type outbox.enqueued as (
    ord               int,
    job_id            uuid,
    status            text,      -- scheduled, pending, expired; null when nothing was stored
    result            text,      -- new, duplicate, conflict, invalid
    job_ids           uuid[],    -- of a list of addresses: the job of each
    faults            outbox.fault[]
);

create function outbox.caller() returns text
    language sql stable parallel safe
    return coalesce(nullif(current_setting('role', true), 'none'), session_user);

create function outbox.may_enqueue(tenant text) returns boolean
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select (coalesce(current_setting('outbox.tenant', true), '') in ('', '*', tenant))
       and exists (select from outbox.producer_tenant as p
                   join pg_roles as r on r.rolname = p.role_name
                   where p.tenant_id in (tenant, '*') and pg_has_role(outbox.caller(), r.oid, 'member'))
$$;

create function outbox.lane_of(for_tenant text, for_queue text) returns int
    language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    found_id int;
begin
    select l.lane_id into found_id from outbox.lane as l
    where l.tenant_id = for_tenant and l.queue = for_queue and l.scope = '';
    while found_id is null loop
        insert into outbox.lane (tenant_id, queue, paused_at, paused_by)
        select for_tenant, for_queue, q.paused_at, q.paused_by
        from (select) as one left join outbox.queue_pause as q on q.queue = for_queue
        on conflict (tenant_id, queue, scope) do nothing
        returning lane_id into found_id;
        if found_id is null then
            select l.lane_id into found_id from outbox.lane as l
            where l.tenant_id = for_tenant and l.queue = for_queue and l.scope = '';
        end if;
    end loop;
    return found_id;
end
$$;

-- Store jobs whose keys are new. Hash joins only: between arrays whose sizes the planner cannot
-- know, a nested loop over 10,000 x 10,000 would cost seconds.
create function outbox.store_jobs(
    parsed outbox.parsed[], fresh_ids bigint[], lane_tenants text[], lane_queues text[], lane_ids int[],
    at timestamptz, traceparents text[], resend_of uuid
) returns void
    language plpgsql volatile set search_path = pg_catalog, pg_temp set enable_nestloop = off as $$
begin
    with fresh as materialized (
        select p.*, l.lane_id
        from unnest(parsed) as p
        join unnest(fresh_ids) as f(id) on f.id = p.id
        join unnest(lane_tenants, lane_queues, lane_ids) as l(tenant_id, queue, lane_id)
          on l.tenant_id = p.tenant_id and l.queue = p.queue
    ), jobs as (
        insert into outbox.job (id, job_id, created_at, send_after, expires_at, lane_id, priority, tenant_id,
            queue, channel, template_code, locale, user_id, event_id, campaign_id, category, traceparent,
            resend_of, list_job_id, job)
        select id, job_id, created_at, send_after, expires_at, lane_id, priority, tenant_id, queue, channel,
            template_code, locale, user_id, event_id, campaign_id, category, traceparents[ord],
            store_jobs.resend_of, list_job_id, job
        from fresh
    ), entries as (
        insert into outbox.entry (id, available_at, expires_at, lane_id, priority, max_attempts)
        select id, greatest(send_after, clock_timestamp()), expires_at, lane_id, priority, max_attempts
        from fresh where expires_at is null or expires_at > at
    ), expired as (
        insert into outbox.delivery (id, finished_at, lease_no, series, attempt, terminal, status, tenant_id,
            error_class, error_code, error_message)
        select id, at, 0, 1, 0, true, 'EXPIRED', tenant_id, 'expired', 'job.expired',
            'expires_at had passed when the job was accepted'
        from fresh where expires_at <= at
    )
    insert into outbox.stat_second (at, lane_id, expired)
    select date_trunc('second', at), lane_id, count(*) from fresh where expires_at <= at group by lane_id;
end
$$;

create function outbox.enqueue_many_v1(
    jobs          jsonb[],
    tenant        text    default 'default',  -- null: each job's own tenant_id, else 'default'
    on_conflict   text    default 'raise',    -- or 'skip': report it and store the others
    on_fault      text    default 'raise',    -- or 'skip': report it and store the others
    fill_created  boolean default false,
    notify        boolean default false,      -- ring dispatchers at commit
    traceparents  text[]  default null,
    resend_of     uuid    default null
) returns setof outbox.enqueued
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    limits outbox.setting;
    at timestamptz := clock_timestamp();
    parsed outbox.parsed[];
    p outbox.parsed;
    results outbox.enqueued[] := '{}';
    ids bigint[];
    lane_tenants text[] := '{}';
    lane_queues text[] := '{}';
    lane_ids int[] := '{}';
    bad boolean;
    others boolean;
    t text;
    q text;
begin
    if jobs is null or array_ndims(jobs) > 1 then
        raise exception using errcode = 'OBX01', message = 'jobs must be a list of jsonb objects', detail = '[]';
    end if;
    if on_conflict not in ('raise', 'skip') or on_fault not in ('raise', 'skip') then
        raise exception using errcode = 'OBX01', message = 'on_conflict and on_fault must be raise or skip', detail = '[]';
    end if;
    if cardinality(jobs) = 0 then
        return;
    end if;
    select s.* into limits from outbox.setting as s;
    if cardinality(jobs) > limits.batch_jobs_max then
        raise exception using errcode = 'OBX01', detail = '[]',
            message = format('a batch has at most %s jobs, this one has %s', limits.batch_jobs_max, cardinality(jobs));
    end if;

    parsed := array(select outbox.read_job(u.n::int, u.job, tenant, fill_created, at, limits)
                    from unnest(jobs) with ordinality as u(job, n));

    foreach t in array array(select distinct r.tenant_id from unnest(parsed) as r where r.tenant_id is not null) loop
        if not outbox.may_enqueue(t) then
            raise exception using errcode = 'OBX03', detail = '[]',
                message = format('role %s may not enqueue for tenant %s', quote_ident(outbox.caller()), quote_literal(t));
        end if;
    end loop;

    parsed := outbox.check_references(parsed, limits.template_check);
    bad := exists (select from unnest(parsed) as r where r.faults is not null);
    if bad then
        if on_fault = 'raise' then
            perform outbox.raise_faults(parsed);
        end if;
        results := array(select (r.ord, r.job_id, null, 'invalid', null, r.faults)::outbox.enqueued
                         from unnest(parsed) as r where r.faults is not null);
        parsed := array(select r from unnest(parsed) as r where r.faults is null);
    end if;

    if exists (select from unnest(parsed) as r where jsonb_typeof(r.job -> 'to') = 'array') then
        parsed := outbox.expand_lists(parsed);
    end if;

    -- Keys first, in one order everywhere, so that overlapping batches cannot deadlock.
    with keyed as (
        insert into outbox.job_key (tenant_id, job_id, id, content_sha256)
        select r.tenant_id, r.job_id, r.id, r.content_sha256
        from unnest(parsed) as r
        order by r.tenant_id, r.job_id, r.ord
        on conflict (tenant_id, job_id) do nothing
        returning id
    )
    select array_agg(k.id) into ids from keyed as k;
    others := coalesce(cardinality(ids), 0) < cardinality(parsed);

    if not others then
        results := results || array(
            select (r.ord, r.job_id, outbox.accepted_status(r.send_after, r.expires_at, at), 'new', r.list_job_ids, null)::outbox.enqueued
            from unnest(parsed) as r where r.list_job_id is null);
    else
        -- A second statement sees what a rival committed meanwhile; the first could not.
        declare
            known outbox.enqueued[];
        begin
            known := outbox.compare_known(parsed, ids, at);
            if on_conflict = 'raise' and exists (select from unnest(known) as k where k.result = 'conflict') then
                perform outbox.raise_conflicts(known);
            end if;
            -- A list that conflicts takes its addresses with it.
            if exists (select from unnest(parsed) as r where r.list_job_id is not null) then
                ids := array(select r.id from unnest(parsed) as r
                             where r.id = any(ids) and (r.list_job_id is null or not exists (
                                 select from unnest(known) as k
                                 where k.job_id = r.list_job_id and k.result = 'conflict')));
            end if;
            results := results || array(select k from unnest(known) as k
                                        where not exists (select from unnest(parsed) as r
                                                          where r.ord = k.ord and r.job_id = k.job_id and r.list_job_id is not null));
        end;
    end if;

    if coalesce(cardinality(ids), 0) > 0 then
        for t, q in select distinct r.tenant_id, r.queue from unnest(parsed) as r order by 1, 2 loop
            lane_tenants := lane_tenants || t;
            lane_queues := lane_queues || q;
            lane_ids := lane_ids || outbox.lane_of(t, q);
        end loop;
        perform outbox.store_jobs(array(select r from unnest(parsed) as r where r.list_job_ids is null),
                                  ids, lane_tenants, lane_queues, lane_ids, at, traceparents, resend_of);
        if notify then
            perform outbox.ring(lane_ids);
        end if;
    end if;
    return query select r.* from unnest(results) as r order by r.ord;
end
$$;
comment on function outbox.enqueue_many_v1 is
    'Accept jobs in the caller''s transaction: one result each, in order. See docs/contracts.md.';

create function outbox.accepted_status(send_after timestamptz, expires_at timestamptz, at timestamptz) returns text
    language sql immutable parallel safe
    return case when expires_at <= at then 'expired' when send_after > at then 'scheduled' else 'pending' end;

-- Add the faults that only tables can tell, and give every good job its id.
create function outbox.check_references(parsed outbox.parsed[], template_check boolean) returns outbox.parsed[]
    language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    unhandled text[];
    templates text[];
begin
    -- Distinct names are few: look each up once.
    unhandled := array(
        select d.kind || ':' || d.name
        from (select distinct case when r.channel is null then 'queue' else 'channel' end as kind,
                              coalesce(r.channel, r.queue) as name
              from unnest(parsed) as r where r.faults is null) as d
        where not exists (select from outbox.handler as h where h.kind = d.kind and h.name = d.name));
    templates := array(
        select d.tenant_id || ' ' || d.template_code
        from (select distinct r.tenant_id, r.template_code from unnest(parsed) as r
              where r.faults is null and r.template_code is not null and template_check) as d
        where not exists (select from outbox.template as t
                          where t.tenant_id = d.tenant_id and t.code = d.template_code and t.deleted_at is null));
    if cardinality(unhandled) = 0 and cardinality(templates) = 0 then
        for i in 1 .. cardinality(parsed) loop
            parsed[i].id := outbox.next_id();
        end loop;
        return parsed;
    end if;
    for i in 1 .. cardinality(parsed) loop
        continue when parsed[i].faults is not null;
        if parsed[i].channel is not null and 'channel:' || parsed[i].channel = any(unhandled) then
            parsed[i].faults := array[('/channel', 'has no handler installed')::outbox.fault];
        elsif parsed[i].channel is null and 'queue:' || parsed[i].queue = any(unhandled) then
            parsed[i].faults := array[('/queue', 'has no handler installed')::outbox.fault];
        end if;
        if parsed[i].tenant_id || ' ' || parsed[i].template_code = any(templates) then
            parsed[i].faults := coalesce(parsed[i].faults, '{}') ||
                ('/template_code', 'is no template of this tenant, in any channel or locale')::outbox.fault;
        end if;
        parsed[i].id := outbox.next_id();
    end loop;
    return parsed;
end
$$;

-- One job per address of a list, with ids UUIDv5(job_id, address). The list's own key stays, so
-- that the same list with other content is a conflict.
create function outbox.expand_lists(parsed outbox.parsed[]) returns outbox.parsed[]
    language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    expanded outbox.parsed[] := '{}';
    p outbox.parsed;
    child outbox.parsed;
    address text;
begin
    foreach p in array parsed loop
        if jsonb_typeof(p.job -> 'to') is distinct from 'array' then
            expanded := expanded || p;
            continue;
        end if;
        p.list_job_ids := '{}';
        for address in
            select distinct on (a.address) a.address from jsonb_array_elements_text(p.job -> 'to') as a(address)
        loop
            child := p;
            child.id := outbox.next_id();
            child.job_id := outbox.uuid5(p.job_id, address);
            child.list_job_id := p.job_id;
            child.list_job_ids := null;
            child.job := jsonb_set(p.job, '{to}', to_jsonb(address)) - 'job_id' - 'idempotency_key';
            child.content_sha256 := sha256(convert_to(child.job::text, 'UTF8'));
            expanded := expanded || child;
            p.list_job_ids := p.list_job_ids || child.job_id;
        end loop;
        expanded := expanded || p;
    end loop;
    return expanded;
end
$$;

-- What the keys that were there already say of these jobs: new, duplicate or conflict.
create function outbox.compare_known(parsed outbox.parsed[], fresh_ids bigint[], at timestamptz)
    returns outbox.enqueued[]
    language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    compared outbox.enqueued[];
begin
    compared := array(
        select (r.ord, r.job_id,
                case when k.id = r.id then outbox.accepted_status(r.send_after, r.expires_at, at)
                     when k.content_sha256 = r.content_sha256 then outbox.current_status(k.id) end,
                case when k.id = r.id then 'new'
                     when k.content_sha256 = r.content_sha256 then 'duplicate'
                     else 'conflict' end,
                r.list_job_ids, null)::outbox.enqueued
        from unnest(parsed) as r
        cross join lateral (select k.id, k.content_sha256 from outbox.job_key as k
                            where k.tenant_id = r.tenant_id and k.job_id = r.job_id offset 0) as k);
    if cardinality(compared) < cardinality(parsed) then
        -- Pruned between the two statements, or hidden by an older snapshot.
        raise exception using errcode = '40001', message = 'a job_id changed hands during enqueue: try again';
    end if;
    return compared;
end
$$;

create function outbox.raise_faults(parsed outbox.parsed[]) returns void
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    said text;
    listed text;
begin
    select string_agg(format('%s %s', case f.pointer when '' then 'the job' else f.pointer end, f.message), '; '
                      order by r.ord, f.pointer) filter (where f.n <= 5),
           jsonb_agg(jsonb_build_object('index', r.ord - 1, 'pointer', f.pointer, 'message', f.message)
                     order by r.ord, f.pointer)::text
    into said, listed
    from unnest(parsed) as r
    cross join lateral (select u.pointer, u.message, row_number() over () as n from unnest(r.faults) as u) as f;
    raise exception using errcode = 'OBX01', message = left(said, 1000), detail = listed,
        hint = 'Nothing was stored. See docs/contracts.md.';
end
$$;

create function outbox.raise_conflicts(known outbox.enqueued[]) returns void
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    ids jsonb := (select jsonb_agg(k.job_id order by k.ord) from unnest(known) as k where k.result = 'conflict');
begin
    raise exception using errcode = 'OBX02', detail = ids::text,
        message = format('job_id %s was accepted before with other content', ids ->> 0),
        hint = 'Nothing was stored. The same job_id stands for the same content.';
end
$$;

-- Wake dispatchers when this commits: "<lane>,<lane>". NOTIFY serialises commits over the whole
-- database, so producers ask for it by name (docs/adr/0003).
create function outbox.ring(lane_ids int[]) returns void
    language sql volatile
    as $$ select pg_notify('outbox_bell', left(array_to_string(lane_ids[:200], ','), 7000)) $$;

-- The faces for SQL producers. A fault raises; the caller's transaction rolls back as it should.
create function outbox.enqueue(
    job jsonb, tenant text default 'default', notify boolean default false, on_conflict text default 'raise',
    out job_id uuid, out status text, out duplicate boolean, out job_ids uuid[]
) returns record
    language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select e.job_id, e.status, e.result <> 'new', e.job_ids
    from outbox.enqueue_many_v1(array[job], tenant, on_conflict => on_conflict, notify => notify) as e
$$;
comment on function outbox.enqueue is 'Accept one NotificationJob in this transaction.';

create function outbox.enqueue_many(
    jobs jsonb[], tenant text default 'default', notify boolean default false, on_conflict text default 'raise'
) returns table (job_id uuid, status text, duplicate boolean, conflict boolean, job_ids uuid[])
    language sql volatile security definer set search_path = pg_catalog, pg_temp as $$
    select e.job_id, e.status, e.result = 'duplicate', e.result = 'conflict', e.job_ids
    from outbox.enqueue_many_v1(jobs, tenant, on_conflict => on_conflict, notify => notify) as e order by e.ord
$$;
comment on function outbox.enqueue_many is 'Accept many NotificationJobs in this transaction: a result each, in order.';

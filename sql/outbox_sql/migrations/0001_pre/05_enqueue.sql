-- The one way in. HTTP, the Python library and the SQL faces all end in enqueue_many_v1, so there
-- is one validation and one idempotency (store.md 7).
--
-- SQLSTATEs: OBX01 a job breaks the contract, OBX02 a job_id was accepted before with other
-- content, OBX03 the role may not act for the tenant. DETAIL is a JSON list.

create type outbox.enqueued as (
    ord               int,
    job_id            uuid,
    status            text,      -- scheduled, pending, expired; null when nothing was stored
    result            text,      -- new, duplicate (by dedup_key: job_id is that of the job kept), conflict, invalid
    job_ids           uuid[],    -- of a list of addresses: the job of each
    faults            outbox.fault[]
);

-- What the store holds under a job's key; `member` is one address of a list.
create type outbox.compared as (
    ord               int,
    id                bigint,
    tenant_id         text,
    job_id            uuid,
    member            boolean,
    status            text,
    result            text,
    job_ids           uuid[]
);

-- The same after a look at dedup_keys (05_enqueue_dedup.sql).
create type outbox.deduplicated as (
    compared          outbox.compared[],
    replaced_ids      bigint[],   -- to be withdrawn once their successors are stored …
    replaced_by       uuid[]      -- … which are these
);

create function outbox.caller() returns text
    language sql stable parallel safe
    return coalesce(nullif(current_setting('role', true), 'none'), session_user);

-- What jobs name, each once, and what the tables say of it.
create type outbox.named as (
    tenant_id         text,
    channel           text,
    queue             text,
    template_code     text,
    permitted         boolean,
    handled           boolean,
    templated         boolean,
    lane_id           int        -- null: there is no such lane yet
);

-- In plpgsql, as all of the hot path: a function in SQL that cannot be inlined is planned anew in
-- every transaction. None but the functions that producers may call pins a search_path and runs as
-- the owner: the others are called by those alone.
create function outbox.look_up(named outbox.named) returns outbox.named
    language plpgsql stable as $$
#variable_conflict use_column
begin
    select exists (select from outbox.producer_tenant as p
                   where p.tenant_id in (named.tenant_id, '*')
                     and pg_has_role(outbox.caller(), to_regrole(quote_ident(p.role_name)), 'member')),
           exists (select from outbox.handler as h
                   where h.kind = case when named.channel is null then 'queue' else 'channel' end
                     and h.name = coalesce(named.channel, named.queue)),
           exists (select from outbox.template as t
                   where t.tenant_id = named.tenant_id and t.code = named.template_code and t.deleted_at is null),
           (select l.lane_id from outbox.lane as l
            where l.tenant_id = named.tenant_id and l.queue = named.queue and l.scope = outbox.scope_now())
    into named.permitted, named.handled, named.templated, named.lane_id;
    named.permitted := named.permitted
                       and coalesce(current_setting('outbox.tenant', true), '') in ('', '*', named.tenant_id);
    return named;
end
$$;

-- Test mode: a transaction that sets outbox.mode to 'test' hands in test jobs (docs/channels.md). They go to
-- the sink, and have lanes, keys and places in line of their own, so that no job in earnest is a duplicate of
-- one, waits behind one, or is held with one.
create function outbox.in_test_mode() returns boolean
    language sql stable parallel safe
    return current_setting('outbox.mode', true) is not distinct from 'test';

-- Whether a lane is one of test jobs: theirs, or a narrower one of theirs. What is counted is counted by lane, so
-- figures leave them out without knowing a single job.
create function outbox.is_test_lane(scope text) returns boolean
    language sql immutable parallel safe
    return scope = 'test' or starts_with(scope, 'test:');

create function outbox.scope_now() returns text
    language sql stable parallel safe
    return case when current_setting('outbox.mode', true) = 'test' then 'test' else '' end;

create function outbox.test_key(key text) returns text
    language sql immutable parallel safe
    return e'\x01test\x01' || key;

-- The same job_id in both modes is a conflict: neither may pass for the other.
create function outbox.set_apart(parsed outbox.parsed[]) returns outbox.parsed[]
    language plpgsql immutable as $$
declare
    marked outbox.parsed[] := '{}';
    p outbox.parsed;
begin
    foreach p in array parsed loop
        p.content_sha256 := sha256(p.content_sha256 || '\x01'::bytea);
        p.ordering_key := outbox.test_key(p.ordering_key);
        p.dedup_key := outbox.test_key(p.dedup_key);
        marked := marked || p;
    end loop;
    return marked;
end
$$;

create function outbox.lane_of(for_tenant text, for_queue text, for_scope text default '') returns int
    language plpgsql volatile as $$
declare
    found_id int;
begin
    select l.lane_id into found_id from outbox.lane as l
    where l.tenant_id = for_tenant and l.queue = for_queue and l.scope = for_scope;
    while found_id is null loop
        insert into outbox.lane (tenant_id, queue, scope, paused_at, paused_by)
        select for_tenant, for_queue, for_scope, q.paused_at, q.paused_by
        from (select) as one left join outbox.queue_pause as q on q.queue = for_queue
        on conflict (tenant_id, queue, scope) do nothing
        returning lane_id into found_id;
        if found_id is null then
            select l.lane_id into found_id from outbox.lane as l
            where l.tenant_id = for_tenant and l.queue = for_queue and l.scope = for_scope;
        end if;
    end loop;
    return found_id;
end
$$;

create function outbox.accepted_status(send_after timestamptz, expires_at timestamptz, at timestamptz) returns text
    language sql immutable parallel safe
    return case when expires_at <= at then 'expired' when send_after > at then 'scheduled' else 'pending' end;

-- What is wrong with the call itself, rather than with one of its jobs.
create function outbox.check_batch(jobs jsonb[], tenant text, on_conflict text, on_fault text, jobs_max int) returns void
    language plpgsql stable as $$
declare
    said text;
begin
    said := case
        when jobs is null or array_ndims(jobs) > 1 then 'jobs must be a list of jsonb objects'
        when on_conflict is null or on_fault is null
             or on_conflict not in ('raise', 'skip') or on_fault not in ('raise', 'skip')
            then 'on_conflict and on_fault must be raise or skip'
        when char_length(tenant) not between 1 and 128 or tenant = '*'
            then 'a tenant must have 1 to 128 characters, and not be "*"'
        when cardinality(jobs) > jobs_max
            then format('a batch has at most %s jobs, this one has %s', jobs_max, cardinality(jobs))
        -- The text is longer than the binary form, so most batches need not be written out.
        when pg_column_size(jobs) > 8388608
             and (select sum(octet_length(j::text)) from unnest(jobs) as j) > 33554432
            then 'a batch has at most 32 MiB'
    end;
    if said is not null then
        raise exception using errcode = 'OBX01', message = said, detail = '[]', hint = 'Nothing was stored.';
    end if;
end
$$;

-- Add the faults that only tables can tell; `unhandled` and `unknown_templates` are few.
create function outbox.add_faults(parsed outbox.parsed[], unhandled text[], unknown_templates text[])
    returns outbox.parsed[]
    language plpgsql stable as $$
#variable_conflict use_column
declare
    marked outbox.parsed[] := '{}';
    p outbox.parsed;
begin
    foreach p in array parsed loop
        if p.faults is null then
            p.faults := nullif(array_remove(array[
                case when p.channel is not null and 'channel ' || p.channel = any(unhandled)
                    then ('/channel', 'has no handler installed')::outbox.fault
                when p.channel is null and 'queue ' || p.queue = any(unhandled)
                    then ('/queue', 'has no handler installed')::outbox.fault end,
                case when p.tenant_id || ' ' || p.template_code = any(unknown_templates)
                    then ('/template_code', 'is no template of this tenant, in any channel or locale')::outbox.fault end
            ], null), '{}');
        end if;
        marked := marked || p;
    end loop;
    return marked;
end
$$;

-- One job per address of a list, with ids UUIDv5(job_id, address). The list's own key stays, so
-- that the same list with other content is a conflict.
create function outbox.expand_lists(parsed outbox.parsed[]) returns outbox.parsed[]
    language plpgsql volatile as $$
declare
    expanded outbox.parsed[] := '{}';
    p outbox.parsed;
    child outbox.parsed;
    address text;
begin
    foreach p in array parsed loop
        if p.list_job_ids is not null then
            for address in
                select a.address from jsonb_array_elements_text(p.job -> 'to') with ordinality as a(address, n)
                group by a.address order by min(a.n)
            loop
                child := p;
                child.id := outbox.next_id();
                child.job_id := outbox.uuid5(p.job_id, address);
                child.list_job_id := p.job_id;
                child.list_job_ids := null;
                child.job := jsonb_set(p.job, '{to}', to_jsonb(address)) - 'idempotency_key';
                child.content_sha256 := sha256(convert_to(child.job::text, 'UTF8'));
                expanded := expanded || child;
                p.list_job_ids := p.list_job_ids || child.job_id;
            end loop;
        end if;
        expanded := expanded || p;
    end loop;
    return expanded;
end
$$;

create function outbox.lanes_of(parsed outbox.parsed[]) returns int[]
    language plpgsql volatile as $$
declare
    place record;
    lane_ids int[] := '{}';
begin
    for place in
        select d.tenant_id, d.queue
        from (select r.tenant_id, r.queue from unnest(parsed) as r group by r.tenant_id, r.queue offset 0) as d
        order by d.tenant_id, d.queue
    loop
        lane_ids := lane_ids || outbox.lane_of(place.tenant_id, place.queue, outbox.scope_now());
    end loop;
    return lane_ids;
end
$$;

-- Keys are stored in one order everywhere, so that overlapping batches cannot deadlock. Returns the
-- ids of those that are new.
create function outbox.store_keys(parsed outbox.parsed[]) returns bigint[]
    language plpgsql volatile as $$
#variable_conflict use_column
declare
    fresh_ids bigint[];
begin
    with keyed as (
        insert into outbox.job_key (tenant_id, job_id, id, content_sha256)
        select r.tenant_id, r.job_id, r.id, r.content_sha256
        from unnest(parsed) as r
        order by r.job_id, r.tenant_id, r.ord
        on conflict (tenant_id, job_id) do nothing
        returning id
    )
    select coalesce(array_agg(k.id), '{}') into fresh_ids from keyed as k;
    return fresh_ids;
end
$$;

-- Store jobs whose keys are new: `keyed_ids` where store_keys has stored the keys, else null, and they
-- are stored here as it does. Returns the ids of the new ones. No joins between arrays, whose sizes
-- the planner cannot know: a nested loop over 10,000 x 10,000 would cost seconds. (An IN that is not
-- a plain condition is always looked up by hash.)
create function outbox.store_jobs(
    parsed outbox.parsed[], keyed_ids bigint[], lane_ids int[], some_expired boolean,
    at timestamptz, traceparents text[], resend_of uuid
) returns bigint[]
    language plpgsql volatile as $$
#variable_conflict use_column
declare
    fresh_ids bigint[];
begin
    with keyed as (
        insert into outbox.job_key (tenant_id, job_id, id, content_sha256)
        select r.tenant_id, r.job_id, r.id, r.content_sha256
        from unnest(case when keyed_ids is null then parsed end) as r
        order by r.job_id, r.tenant_id, r.ord
        on conflict (tenant_id, job_id) do nothing
        returning id
    ), placed as materialized (
        select p.id, p.job_id, p.created_at, p.send_after, p.expires_at, p.priority, p.tenant_id, p.queue, p.channel,
            p.template_code, p.locale, p.user_id, p.event_id, p.campaign_id, p.category,
            traceparents[p.ord] as traceparent, p.list_job_id, p.max_attempts, p.job, p.ordering_key,
            case when cardinality(lane_ids) = 1 then lane_ids[1]
                 else (select l.lane_id from outbox.lane as l
                       where l.tenant_id = p.tenant_id and l.queue = p.queue and l.scope = outbox.scope_now()) end as lane_id
        from unnest(parsed) as p
        where (p.id in (select k.id from keyed as k union all select unnest(keyed_ids))) is true
          and p.list_job_ids is null
    ), jobs as (
        insert into outbox.job (id, job_id, created_at, send_after, expires_at, lane_id, priority, tenant_id,
            queue, channel, template_code, locale, user_id, event_id, campaign_id, category, traceparent,
            resend_of, list_job_id, job)
        select id, job_id, created_at, send_after, expires_at, lane_id, priority, tenant_id, queue, channel,
            template_code, locale, user_id, event_id, campaign_id, category, traceparent,
            store_jobs.resend_of, list_job_id, job
        from placed
    ), entries as (
        insert into outbox.entry (id, available_at, expires_at, lane_id, priority, max_attempts)
        select id, greatest(send_after, clock_timestamp()), expires_at, lane_id, priority, max_attempts
        from placed where (expires_at is null or expires_at > at) and ordering_key is null
    )
    select coalesce(array_agg(p.id), '{}') into fresh_ids from placed as p;

    if some_expired then
        with expired as (
            select p.id, p.tenant_id, l.lane_id from unnest(parsed) as p
            join outbox.lane as l on l.tenant_id = p.tenant_id and l.queue = p.queue and l.scope = outbox.scope_now()
            where p.expires_at <= store_jobs.at and (p.id in (select unnest(fresh_ids))) is true
        ), told as (
            insert into outbox.delivery (id, finished_at, lease_no, series, attempt, terminal, status, tenant_id, lane_id,
                error_class, error_code, error_message)
            select e.id, store_jobs.at, 0, 1, 0, true, 'EXPIRED', e.tenant_id, e.lane_id, 'expired', 'job.expired',
                'expires_at had passed when the job was accepted'
            from expired as e
        )
        insert into outbox.stat_second (at, lane_id, expired, ids, lease_nos)
        select date_trunc('second', store_jobs.at), c.lane_id, cardinality(c.ids), c.ids,
            array_fill(0, array[cardinality(c.ids)])
        from (select e.lane_id, array_agg(e.id) as ids from expired as e group by e.lane_id) as c;
    end if;
    return fresh_ids;
end
$$;

-- What the keys say once they are stored: new, duplicate or conflict. A statement of its own: it sees
-- what a rival committed meanwhile, which the one that stored the keys could not. (With a dedup_key the
-- job under a key may be another than the one that came with this job_id.)
create function outbox.compare_keys(parsed outbox.parsed[], at timestamptz) returns outbox.compared[]
    language plpgsql volatile as $$
declare
    compared outbox.compared[];
begin
    compared := array(
        select (r.ord, r.id, r.tenant_id,
                case when r.dedup_key is not null and k.content_sha256 = r.content_sha256
                     then coalesce((select j.job_id from outbox.job as j where j.id = k.id), r.job_id)
                     else r.job_id end,
                r.list_job_id is not null,
                case when k.id = r.id then outbox.accepted_status(r.send_after, r.expires_at, at)
                     when k.content_sha256 = r.content_sha256
                         -- A list's status is its first job's; a twin in this very batch has no status yet.
                         then coalesce(outbox.current_status(k.id), outbox.current_status(m.id),
                                       outbox.accepted_status(r.send_after, r.expires_at, at)) end,
                case when k.id = r.id then 'new'
                     when k.content_sha256 = r.content_sha256 then 'duplicate'
                     else 'conflict' end,
                r.list_job_ids)::outbox.compared
        from unnest(parsed) as r
        cross join lateral (select k.id, k.content_sha256 from outbox.job_key as k
                            where k.tenant_id = r.tenant_id and k.job_id = r.job_id offset 0) as k
        left join lateral (select k.id from outbox.job_key as k
                           where k.tenant_id = r.tenant_id and k.job_id = r.list_job_ids[1] offset 0) as m on true);
    if cardinality(compared) < cardinality(parsed) then
        -- Pruned between the two statements, or hidden by an older snapshot.
        raise exception using errcode = '40001', message = 'a job_id changed hands during enqueue: try again';
    end if;
    return compared;
end
$$;

-- Give up the keys of lists that cannot be stored whole.
create function outbox.drop_keys(compared outbox.compared[], refused int[]) returns void
    language plpgsql volatile as $$
begin
    delete from outbox.job_key as k using unnest(compared) as c
    where c.ord = any(refused) and c.result = 'new'
      and k.tenant_id = c.tenant_id and k.job_id = c.job_id and k.id = c.id;
end
$$;

-- The first so many faults: the answer to 10,000 hopeless jobs has a limit too.
create function outbox.raise_faults(parsed outbox.parsed[]) returns void
    language plpgsql stable as $$
declare
    said text;
    listed text;
begin
    select string_agg(format('%s %s', case l.pointer when '' then 'the job' else l.pointer end, l.message), '; '
                      order by l.ord, l.pointer) filter (where l.n <= 5),
           jsonb_agg(jsonb_build_object('index', l.ord - 1, 'pointer', l.pointer, 'message', l.message)
                     order by l.ord, l.pointer)::text
    into said, listed
    from (select r.ord, f.pointer, f.message, row_number() over (order by r.ord, f.pointer) as n
          from (select p.ord, p.faults from unnest(parsed) as p
                where p.faults is not null order by p.ord limit 1000) as r
          cross join lateral unnest(r.faults) as f
          order by r.ord, f.pointer limit 1000) as l;
    raise exception using errcode = 'OBX01', message = left(said, 1000), detail = listed,
        hint = 'Nothing was stored. See docs/contracts.md.';
end
$$;

-- Who came second is at fault alone: the first of two contents under one job_id in one batch is not.
create function outbox.raise_conflicts(parsed outbox.parsed[], results outbox.enqueued[]) returns void
    language plpgsql stable as $$
declare
    found jsonb;
begin
    with clash as (
        select p.ord, bool_and(o.ord is not null) as in_batch, min(o.ord) as with_ord
        from unnest(parsed) as p
        join outbox.job_key as k on k.tenant_id = p.tenant_id and k.job_id = p.job_id
        left join unnest(parsed) as o on o.id = k.id
        where k.id <> p.id and k.content_sha256 <> p.content_sha256
        group by p.ord
    )
    select jsonb_agg(jsonb_build_object(
               'index', r.ord - 1, 'job_id', r.job_id, 'pointer', '/job_id',
               'message', case when c.in_batch then format('is that of job %s of this batch, with other content', c.with_ord - 1)
                               else 'was accepted before with other content' end) order by r.ord)
    into found
    from unnest(results) as r
    left join clash as c on c.ord = r.ord
    where r.result = 'conflict';
    raise exception using errcode = 'OBX02', detail = found::text,
        message = format('job_id %s %s', found -> 0 ->> 'job_id', found -> 0 ->> 'message'),
        hint = 'Nothing was stored. The same job_id stands for the same content.';
end
$$;

-- Wake dispatchers when this commits: "<lane>,<lane>". NOTIFY serialises commits over the whole
-- database, so producers ask for it by name (docs/adr/0003).
create function outbox.ring(lane_ids int[]) returns void
    language sql volatile
    as $$ select pg_notify('outbox_bell', left(array_to_string(lane_ids[:200], ','), 7000)) $$;

-- The long way: any jobs. In a function of its own, because setting up its variables costs a single job
-- more than its short way does.
create function outbox.enqueue_any(
    jobs jsonb[], tenant text, on_conflict text, on_fault text, fill_created boolean, notify boolean, at timestamptz,
    traceparents text[], resend_of uuid
) returns setof outbox.enqueued
    language plpgsql volatile as $$
#variable_conflict use_variable
declare
    limits outbox.setting;
    parsed outbox.parsed[];
    names outbox.named[];
    name outbox.named;
    unhandled text[] := '{}';
    unknown_templates text[] := '{}';
    some_faults boolean;
    some_lists boolean;
    some_expired boolean;
    fresh_ids bigint[];
    lane_ids int[] := '{}';
    all_lanes boolean := true;
    some_ordered boolean;
    some_dedup boolean;
    compared outbox.compared[];
    deduplicated outbox.deduplicated;
    refused int[];
    results outbox.enqueued[] := '{}';
begin
    select s.* into limits from outbox.setting as s;
    if jobs is null or array_ndims(jobs) > 1 or cardinality(jobs) > limits.batch_jobs_max or pg_column_size(jobs) > 8388608
       or char_length(tenant) not between 1 and 128 or tenant = '*'
       or (on_conflict in ('raise', 'skip') and on_fault in ('raise', 'skip')) is not true then
        perform outbox.check_batch(jobs, tenant, on_conflict, on_fault, limits.batch_jobs_max);
    end if;
    parsed := outbox.read_jobs(jobs, tenant, fill_created, at, limits);

    select bool_or(r.faults is not null), bool_or(r.list_job_ids is not null), bool_or(r.expires_at <= at),
        bool_or(r.ordering_key is not null), bool_or(r.dedup_key is not null)
    into some_faults, some_lists, some_expired, some_ordered, some_dedup
    from unnest(parsed) as r;
    names := array(select (d.tenant_id, d.channel, d.queue, d.template_code, null, null, null, null)::outbox.named
                   from (select distinct r.tenant_id, r.channel, r.queue, r.template_code from unnest(parsed) as r) as d);
    foreach name in array names loop
        name := outbox.look_up(name);
        -- (A job that names a tenant not its own is at fault already: it fails no neighbour.)
        if not name.permitted
           and exists (select from unnest(parsed) as r where r.tenant_id = name.tenant_id and r.faults is null) then
            raise exception using errcode = 'OBX03', detail = '[]',
                message = format('role %s may not enqueue for tenant %s',
                                 quote_ident(outbox.caller()), quote_literal(name.tenant_id));
        end if;
        if not name.handled and coalesce(name.channel, name.queue) is not null then
            unhandled := unhandled || coalesce('channel ' || name.channel, 'queue ' || name.queue);
        end if;
        if not name.templated and name.template_code is not null and limits.template_check then
            unknown_templates := unknown_templates || (name.tenant_id || ' ' || name.template_code);
        end if;
        all_lanes := all_lanes and name.lane_id is not null;
        if not name.lane_id = any(lane_ids) then
            lane_ids := lane_ids || name.lane_id;
        end if;
    end loop;

    if cardinality(unhandled) > 0 or cardinality(unknown_templates) > 0 then
        parsed := outbox.add_faults(parsed, unhandled, unknown_templates);
        some_faults := true;
    end if;
    if some_faults then
        if on_fault = 'raise' then
            perform outbox.raise_faults(parsed);
        end if;
        results := array(select (r.ord, r.job_id, null, 'invalid', null, r.faults)::outbox.enqueued
                         from unnest(parsed) as r where r.faults is not null);
        parsed := array(select r from unnest(parsed) as r where r.faults is null);
    end if;
    if some_lists then
        parsed := outbox.expand_lists(parsed);
    end if;
    if outbox.in_test_mode() then
        parsed := outbox.set_apart(parsed);
    end if;

    if not all_lanes and cardinality(parsed) > 0 then
        lane_ids := outbox.lanes_of(parsed);
    end if;
    if not (some_lists or some_dedup) then
        fresh_ids := outbox.store_jobs(parsed, null, lane_ids, some_expired, at, traceparents, resend_of);
        if some_ordered then
            perform outbox.store_ordered(parsed, fresh_ids, at, limits.address_key);
        end if;
        if cardinality(fresh_ids) = cardinality(parsed) and cardinality(results) = 0 then
            return query
            select r.ord, r.job_id, outbox.accepted_status(r.send_after, r.expires_at, at), 'new', null::uuid[],
                null::outbox.fault[]
            from unnest(parsed) as r;
            if notify then
                perform outbox.ring(lane_ids);
            end if;
            return;
        end if;
    else
        perform outbox.store_keys(parsed);
    end if;

    -- Some were there before: say what is what.
    compared := outbox.compare_keys(parsed, at);
    refused := array(select distinct c.ord from unnest(compared) as c where c.result = 'conflict');
    if some_dedup then
        deduplicated := outbox.deduplicate(parsed, compared, at, limits.address_key);
        compared := deduplicated.compared;
    end if;
    results := results || array(
        select (c.ord, c.job_id, case when c.ord = any(refused) then null else c.status end,
                case when c.ord = any(refused) then 'conflict' else c.result end, c.job_ids, null)::outbox.enqueued
        from unnest(compared) as c where not c.member);
    if cardinality(refused) > 0 and on_conflict = 'raise' then
        perform outbox.raise_conflicts(parsed, results);
    end if;
    if some_lists or some_dedup then
        -- A list is stored whole or not at all, so its jobs wait until all its keys are compared.
        perform outbox.drop_keys(compared, refused);
        fresh_ids := array(select c.id from unnest(compared) as c where c.result = 'new' and c.ord <> all(refused));
        fresh_ids := outbox.store_jobs(parsed, fresh_ids, lane_ids, some_expired, at, traceparents, resend_of);
        if some_ordered then
            perform outbox.store_ordered(parsed, fresh_ids, at, limits.address_key);
        end if;
        for n in 1 .. coalesce(cardinality(deduplicated.replaced_ids), 0) loop
            perform outbox.cancel_jobs(array[deduplicated.replaced_ids[n]], 'dedup_policy',
                                       format('replaced by %s', deduplicated.replaced_by[n]));
        end loop;
    end if;
    return query select r.* from unnest(results) as r order by r.ord;
    if notify and cardinality(fresh_ids) > 0 then
        perform outbox.ring(lane_ids);
    end if;
end
$$;
-- The short way of a single job: typical, small, due, new, and all that it names is there. Any other
-- gets a NULL id, and nothing was done: the long way decides. Plain variables, four looks in one
-- statement, three plain inserts: in every transaction Postgres sets each expression and statement up
-- anew, which costs more than to run it (measured: a third of the long way).
create function outbox.enqueue_typical(
    sent jsonb, tenant text, fill_created boolean, at timestamptz, notify boolean, traceparent text, resend_of uuid
) returns outbox.enqueued
    language plpgsql volatile as $$
#variable_conflict use_variable
declare
    of_tenant text := coalesce(tenant, 'default');
    said_id text := sent ->> 'job_id';
    user_id text := sent ->> 'user_id';
    channel text := sent ->> 'channel';
    template_code text := sent ->> 'template_code';
    locale text := sent ->> 'locale';
    said_created text := sent ->> 'created_at';
    said_expires text := sent ->> 'expires_at';
    meta jsonb := sent -> 'meta';
    event_id text := meta ->> 'event_id';
    campaign_id text := meta ->> 'campaign_id';
    said_priority text := meta ->> 'priority';
    id bigint;
    uuid uuid;
    created_at timestamptz;
    expires_at timestamptz;
    priority smallint;
    lane int;
    job jsonb;
    content text;
begin
    if jsonb_typeof(sent) is distinct from 'object' or sent ->> 'send_after' is not null then
        return null;
    end if;
    job := sent - array['job_id', 'send_after', case when locale is null then 'locale' end,
                        case when said_created is null then 'created_at' end,
                        case when said_expires is null then 'expires_at' end];
    content := job::text;
    uuid := case when outbox.is_uuid(said_id) then said_id::uuid end;
    created_at := case when said_created is not null then outbox.to_time(said_created) when fill_created then at end;
    expires_at := outbox.to_time(said_expires);
    -- (No setting of job_bytes_max is below this one.)
    if (octet_length(content) <= 4000 and created_at is not null and (said_expires is null or expires_at > at)
        and outbox.is_typical(job, user_id, channel, template_code, locale, meta, event_id, campaign_id, said_priority,
                              said_id, uuid)
        and current_setting('outbox.mode', true) is distinct from 'test'
        and coalesce(current_setting('outbox.tenant', true), '') in ('', '*', of_tenant)) is not true then
        return null;
    end if;
    select l.lane_id into lane
    from outbox.lane as l
    where l.tenant_id = of_tenant and l.queue = channel and l.scope = '' and l.tenant_id <> '*'
      and exists (select from outbox.producer_tenant as p
                  where p.tenant_id in (of_tenant, '*')
                    and pg_has_role(outbox.caller(), to_regrole(quote_ident(p.role_name)), 'member'))
      and exists (select from outbox.handler as h where h.kind = 'channel' and h.name = channel)
      and exists (select from outbox.template as t
                  where t.tenant_id = of_tenant and t.code = template_code and t.deleted_at is null);
    if lane is null then
        return null;
    end if;
    id := ((extract(epoch from at) * 1000)::bigint - 1577836800000) << 22 | (nextval('outbox.id_seq') & 4194303);
    uuid := coalesce(uuid, outbox.uuid7());
    insert into outbox.job_key (tenant_id, job_id, id, content_sha256)
    values (of_tenant, uuid, id, sha256(convert_to(content, 'UTF8')))
    on conflict (tenant_id, job_id) do nothing;
    if not found then
        return null;
    end if;
    priority := coalesce(outbox.to_priority(said_priority), 1);
    insert into outbox.job (id, job_id, created_at, expires_at, lane_id, priority, tenant_id, queue, channel,
        template_code, locale, user_id, event_id, campaign_id, traceparent, resend_of, job)
    values (id, uuid, created_at, expires_at, lane, priority, of_tenant, channel, channel, template_code, locale,
        user_id, event_id, campaign_id, traceparent, resend_of, job);
    insert into outbox.entry (id, available_at, expires_at, lane_id, priority)
    values (id, clock_timestamp(), expires_at, lane, priority);
    if notify then
        perform outbox.ring(array[lane]);
    end if;
    return (1, uuid, 'pending', 'new', null, null)::outbox.enqueued;
end
$$;

create function outbox.enqueue_v1(
    job           jsonb,
    tenant        text    default 'default',
    on_conflict   text    default 'raise',
    fill_created  boolean default false,
    notify        boolean default false,
    traceparent   text    default null
) returns outbox.enqueued
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    set plan_cache_mode = force_generic_plan as $$
declare
    -- The transaction has its number before an id is made of the time: who follows the stream relies on it.
    at timestamptz := case when pg_current_xact_id() is not null then clock_timestamp() end;
    result outbox.enqueued;
begin
    result := outbox.enqueue_typical(job, tenant, fill_created, at, notify, traceparent, null);
    if result.job_id is null then
        select e.* into result
        from outbox.enqueue_any(array[job], tenant, on_conflict, 'raise', fill_created, notify, at, array[traceparent],
                                null) as e;
    end if;
    return result;
end
$$;
comment on function outbox.enqueue_v1 is 'enqueue_many_v1 for one job: the same, at less cost.';

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
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    -- Lists of one job and of 10,000 have one plan, made once a session: else Postgres plans anew each
    -- time, and that was two thirds of a single job's cost.
    set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_variable
declare
    -- The transaction has its number before an id is made of the time: who follows the stream relies on it.
    at timestamptz := case when pg_current_xact_id() is not null then clock_timestamp() end;
    result outbox.enqueued;
begin
    if cardinality(jobs) = 1 then
        result := outbox.enqueue_typical(jobs[1], tenant, fill_created, at, notify, traceparents[1], resend_of);
        if result.job_id is not null then
            return next result;
            return;
        end if;
    end if;
    return query
    select e.* from outbox.enqueue_any(jobs, tenant, on_conflict, on_fault, fill_created, notify, at, traceparents,
                                       resend_of) as e;
end
$$;
comment on function outbox.enqueue_many_v1 is
    'Accept jobs in the caller''s transaction: one result each, in order. See docs/contracts.md.';

-- The faces for SQL producers. A fault raises; the caller's transaction rolls back as it should.
create function outbox.enqueue(
    job jsonb, tenant text default 'default', notify boolean default false, on_conflict text default 'raise',
    out job_id uuid, out status text, out duplicate boolean, out job_ids uuid[]
) returns record
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    result outbox.enqueued := outbox.enqueue_v1(job, tenant, on_conflict, notify => notify);
begin
    job_id := result.job_id;
    status := result.status;
    duplicate := result.result <> 'new';
    job_ids := result.job_ids;
end
$$;
comment on function outbox.enqueue is 'Accept one NotificationJob in this transaction.';

create function outbox.enqueue_many(
    jobs jsonb[], tenant text default 'default', notify boolean default false, on_conflict text default 'raise'
) returns table (job_id uuid, status text, duplicate boolean, conflict boolean, job_ids uuid[])
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    return query
    select e.job_id, e.status, e.result = 'duplicate', e.result = 'conflict', e.job_ids
    from outbox.enqueue_many_v1(enqueue_many.jobs, enqueue_many.tenant, on_conflict => enqueue_many.on_conflict,
                                notify => enqueue_many.notify) as e
    order by e.ord;
end
$$;
comment on function outbox.enqueue_many is 'Accept many NotificationJobs in this transaction: a result each, in order.';

-- Lanes are made with their tenant or handler: the first producer to use one would otherwise make
-- every other wait for its commit.
create function outbox.make_lanes() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    insert into outbox.lane (tenant_id, queue, paused_at, paused_by)
    select t.tenant_id, h.name, q.paused_at, q.paused_by
    from outbox.tenant as t
    cross join outbox.handler as h
    left join outbox.queue_pause as q on q.queue = h.name
    on conflict (tenant_id, queue, scope) do nothing;
    return null;
end
$$;
create trigger make_lanes after insert on outbox.tenant for each statement execute function outbox.make_lanes();
create trigger make_lanes after insert on outbox.handler for each statement execute function outbox.make_lanes();

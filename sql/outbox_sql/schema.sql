-- Today's whole schema. Written by `make schema` from the migrations; a test compares. The daily
-- partitions of job and delivery are left out, and so is Alembic's own table.
set check_function_bodies = false;

CREATE SCHEMA outbox;

CREATE TYPE outbox.compared AS (
	ord integer,
	id bigint,
	tenant_id text,
	job_id uuid,
	member boolean,
	status text,
	result text,
	job_ids uuid[]
);

CREATE TYPE outbox.deduplicated AS (
	compared outbox.compared[],
	replaced_ids bigint[],
	replaced_by uuid[]
);

CREATE TYPE outbox.fault AS (
	pointer text,
	message text
);

CREATE TYPE outbox.enqueued AS (
	ord integer,
	job_id uuid,
	status text,
	result text,
	job_ids uuid[],
	faults outbox.fault[]
);

CREATE TYPE outbox.named AS (
	tenant_id text,
	channel text,
	queue text,
	template_code text,
	permitted boolean,
	handled boolean,
	templated boolean,
	lane_id integer
);

CREATE TYPE outbox.parsed AS (
	ord integer,
	id bigint,
	job_id uuid,
	tenant_id text,
	queue text,
	channel text,
	template_code text,
	locale text,
	user_id text,
	event_id text,
	campaign_id text,
	category text,
	priority smallint,
	max_attempts smallint,
	created_at timestamp with time zone,
	send_after timestamp with time zone,
	expires_at timestamp with time zone,
	list_job_id uuid,
	list_job_ids uuid[],
	content_sha256 bytea,
	job jsonb,
	ordering_key text,
	dedup_key text,
	faults outbox.fault[]
);

CREATE FUNCTION outbox.accepted_status(send_after timestamp with time zone, expires_at timestamp with time zone, at timestamp with time zone) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (expires_at <= at) THEN 'expired'::text WHEN (send_after > at) THEN 'scheduled'::text ELSE 'pending'::text END;

CREATE FUNCTION outbox.acts_for(tenant text) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (COALESCE(current_setting('outbox.tenant'::text, true), ''::text) = ANY (ARRAY[''::text, '*'::text, tenant]));

CREATE FUNCTION outbox.add_counts(a bigint[], b bigint[]) RETURNS bigint[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
begin
    if a is null or b is null then
        return coalesce(a, b);
    end if;
    for i in 1..cardinality(b) loop
        a[i] := coalesce(a[i], 0) + b[i];
    end loop;
    return a;
end
$$;

CREATE FUNCTION outbox.add_faults(parsed outbox.parsed[], unhandled text[], unknown_templates text[]) RETURNS outbox.parsed[]
    LANGUAGE plpgsql STABLE
    AS $$
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

CREATE TABLE outbox.setting (
    only_row boolean DEFAULT true NOT NULL,
    job_bytes_max integer DEFAULT 262144 NOT NULL,
    batch_jobs_max integer DEFAULT 10000 NOT NULL,
    retention_s integer DEFAULT 7776000 NOT NULL,
    dead_letter_retention_s integer DEFAULT 15552000 NOT NULL,
    timeout_s_max integer DEFAULT 50 NOT NULL,
    template_check boolean DEFAULT true NOT NULL,
    default_locale text DEFAULT 'en'::text NOT NULL,
    ordering_on_failure text DEFAULT 'pass'::text NOT NULL,
    address_key bytea DEFAULT sha256((uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))) NOT NULL,
    CONSTRAINT setting_job_bytes_max_check CHECK ((job_bytes_max >= 4096)),
    CONSTRAINT setting_only_row_check CHECK (only_row),
    CONSTRAINT setting_ordering_on_failure_check CHECK ((ordering_on_failure = ANY (ARRAY['pass'::text, 'hold'::text])))
);

CREATE FUNCTION outbox.address_hash(address text) RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN (SELECT ((('x'::text || encode(substr(sha256((s.address_key || convert_to(lower(address_hash.address), 'UTF8'::name))), 1, 8), 'hex'::text)))::bit(64))::bigint AS int8 FROM outbox.setting s);

COMMENT ON FUNCTION outbox.address_hash(address text) IS 'The keyed hash under which delivery finds what was sent to an address.';

CREATE FUNCTION outbox.address_user(channel text, address text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN "left"(((channel || ':'::text) || lower(address)), 128);

CREATE FUNCTION outbox.analyze_parents(now timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $$
declare
    parent text;
    -- From 18 on the partitions, which autovacuum sees to, can be left out.
    only_it text := case when current_setting('server_version_num')::int >= 180000 then 'only ' else '' end;
    done text[] := '{}';
    is_daily boolean;
begin
    select c.done_at < coalesce(now, clock_timestamp()) - interval '1 day' into is_daily
    from outbox.chore as c where c.chore = 'analyze' for update skip locked;
    if is_daily is null then
        return done;
    end if;
    foreach parent in array array['job', 'delivery', 'job_key'] loop
        if is_daily or (
            select abs(sum(greatest(c.reltuples, 0)) - greatest(p.reltuples, 0)) > 1000 + 0.2 * greatest(p.reltuples, 0)
            from pg_class as p join pg_inherits as i on i.inhparent = p.oid join pg_class as c on c.oid = i.inhrelid
            where p.oid = format('outbox.%I', parent)::regclass group by p.reltuples)
        then
            execute format('analyze %soutbox.%I', only_it, parent);
            done := done || parent;
        end if;
    end loop;
    if is_daily then
        update outbox.chore as c set done_at = coalesce(now, clock_timestamp()) where c.chore = 'analyze';
    end if;
    return done;
end
$$;

CREATE FUNCTION outbox.arrival_bounds_s() RETURNS double precision[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY[(0.01)::double precision, (0.025)::double precision, (0.05)::double precision, (0.1)::double precision, (0.25)::double precision, (0.5)::double precision, (1)::double precision, (2.5)::double precision, (5)::double precision, (10)::double precision, (30)::double precision, (60)::double precision, (300)::double precision, (900)::double precision, (3600)::double precision, (21600)::double precision, (86400)::double precision];

CREATE FUNCTION outbox.pointer(key text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ('/'::text || replace(replace(key, '~'::text, '~0'::text), '/'::text, '~1'::text));

CREATE FUNCTION outbox.attachment_faults(item jsonb, at text) RETURNS outbox.fault[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (array_remove(ARRAY[CASE WHEN ((item ? 'url'::text) = (item ? 's3'::text)) THEN ROW(at, 'must have either url or s3'::text)::outbox.fault ELSE NULL::outbox.fault END, CASE WHEN ((item ? 'url'::text) AND ((jsonb_typeof((item -> 'url'::text)) <> 'string'::text) OR (char_length((item ->> 'url'::text)) > 2048) OR ((item ->> 'url'::text) !~* '^https?://[^/?#@\x01-\x20\x7f]+([/?#][^\x01-\x20\x7f]*)?$'::text))) THEN ROW((at || '/url'::text), 'must be an http or https URL without a login in it'::text)::outbox.fault ELSE NULL::outbox.fault END, CASE WHEN ((item ? 's3'::text) AND ((jsonb_typeof((item -> 's3'::text)) <> 'string'::text) OR ((char_length((item ->> 's3'::text)) < 1) OR (char_length((item ->> 's3'::text)) > 1024)) OR ((item ->> 's3'::text) ~ '[\x01-\x1f\x7f\\]|(^|/)\.{0,2}(/|$)'::text))) THEN ROW((at || '/s3'::text), 'must be a key of 1 to 1024 characters without a part that is empty, "." or ".."'::text)::outbox.fault ELSE NULL::outbox.fault END, CASE WHEN ((item ? 'filename'::text) AND ((jsonb_typeof((item -> 'filename'::text)) <> 'string'::text) OR ((char_length((item ->> 'filename'::text)) < 1) OR (char_length((item ->> 'filename'::text)) > 255)) OR ((item ->> 'filename'::text) = ANY (ARRAY['.'::text, '..'::text])) OR ((item ->> 'filename'::text) ~ '[\x01-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069/\\]'::text))) THEN ROW((at || '/filename'::text), 'must be a name of 1 to 255 characters without a path or a line break'::text)::outbox.fault WHEN (((item -> 'inline'::text) = 'true'::jsonb) AND COALESCE(((item ->> 'filename'::text) !~ '^[A-Za-z0-9][A-Za-z0-9._-]*$'::text), true)) THEN ROW((at || '/filename'::text), 'must be letters, digits, ".", "_" and "-": the HTML shows it by cid:'::text)::outbox.fault ELSE NULL::outbox.fault END, CASE WHEN ((item ? 'content_type'::text) AND ((jsonb_typeof((item -> 'content_type'::text)) <> 'string'::text) OR ((item ->> 'content_type'::text) !~* '^[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}$'::text) OR ((item ->> 'content_type'::text) ~* '^(multipart|message)/'::text))) THEN ROW((at || '/content_type'::text), 'must be a media type without parameters, and no multipart or message'::text)::outbox.fault ELSE NULL::outbox.fault END, CASE WHEN (jsonb_typeof((item -> 'inline'::text)) <> 'boolean'::text) THEN ROW((at || '/inline'::text), 'must be true or false'::text)::outbox.fault ELSE NULL::outbox.fault END], NULL::outbox.fault) || ARRAY(SELECT ROW((attachment_faults.at || outbox.pointer(k.key)), 'is not a known field'::text)::outbox.fault AS "row" FROM jsonb_object_keys((attachment_faults.item - ARRAY['url'::text, 's3'::text, 'filename'::text, 'content_type'::text, 'inline'::text])) k(key) LIMIT 20));

CREATE FUNCTION outbox.attachments_faults(attachments jsonb, channel text) RETURNS outbox.fault[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
declare
    faults outbox.fault[] := '{}';
    item jsonb;
    at text;
begin
    if channel is distinct from 'email' then
        return array[('/attachments', 'are for email alone')::outbox.fault];
    elsif jsonb_typeof(attachments) <> 'array' then
        return array[('/attachments', 'must be a list')::outbox.fault];
    elsif jsonb_array_length(attachments) > 20 then
        return array[('/attachments', 'must be at most 20')::outbox.fault];
    end if;
    for item, at in
        select v.item, '/attachments/' || (v.n - 1) from jsonb_array_elements(attachments) with ordinality as v(item, n)
    loop
        if jsonb_typeof(item) <> 'object' then
            faults := faults || (at, 'must be an object')::outbox.fault;
        else
            faults := faults || outbox.attachment_faults(outbox.without_nulls(item), at);
        end if;
    end loop;
    return faults;
end
$$;

CREATE FUNCTION outbox.authenticate(hash bytea) RETURNS TABLE(key_id uuid, name text, tenant_id text, scopes text[], mode text, expires_at timestamp with time zone)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with used as (
        update outbox.api_key as k set last_used_at = clock_timestamp()
        where k.key_sha256 = hash and (k.last_used_at is null or k.last_used_at < clock_timestamp() - interval '1 minute')
    )
    select k.key_id, k.name, k.tenant_id, k.scopes, k.mode, k.expires_at from outbox.api_key as k
    where k.key_sha256 = hash and k.revoked_at is null and (k.expires_at is null or k.expires_at > clock_timestamp())
$$;

CREATE FUNCTION outbox.begin_replay(wanted uuid, for_tenant text, filter jsonb, rate_per_s double precision, jobs_max integer, plan jsonb, actor text, reason text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    known outbox.replay_run;
begin
    if not outbox.acts_for(for_tenant) then
        raise exception using errcode = 'OBX03', detail = '[]', message = 'another tenant''s dead letters';
    end if;
    insert into outbox.replay_run (run_id, tenant_id, filter, rate_per_s, jobs_max, plan, newest, begun_by, reason)
    values (wanted, for_tenant, filter, rate_per_s, jobs_max, plan,
            coalesce((select max(d.dead_letter_id) from outbox.dead_letter as d), 0), actor, reason)
    on conflict (run_id) do nothing;
    if not found then
        select * into known from outbox.replay_run as r where r.run_id = wanted;
        return case when (known.tenant_id, known.filter) = (for_tenant, begin_replay.filter)
                         and (known.rate_per_s, known.jobs_max, known.reason)
                             is not distinct from (begin_replay.rate_per_s, begin_replay.jobs_max, begin_replay.reason)
                    then 'known' else 'other' end;
    end if;
    insert into outbox.operator_action (actor, action, tenant_id, detail)
    values (actor, 'replay.begin', for_tenant,
            jsonb_strip_nulls(jsonb_build_object('run_id', wanted, 'filter', filter, 'rate_per_s', rate_per_s,
                'limit', jobs_max, 'plan', plan - 'sample', 'reason', reason))
            || jsonb_build_object('before', null, 'after', jsonb_build_object('state', 'running')));
    return 'begun';
end
$$;

CREATE FUNCTION outbox.caller() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN COALESCE(NULLIF(current_setting('role'::text, true), 'none'::text), (SESSION_USER)::text);

CREATE FUNCTION outbox.cancel_jobs(ids bigint[], actor text, reason text DEFAULT NULL::text) RETURNS TABLE(id bigint, result text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION outbox.catalog_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    update outbox.control set version = version + 1, catalog = catalog + 1;
    perform pg_notify('outbox_bell', 'control');
    return null;
end
$$;

CREATE FUNCTION outbox.check_batch(jobs jsonb[], tenant text, on_conflict text, on_fault text, jobs_max integer) RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$
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

CREATE FUNCTION outbox.check_limits(weight integer, concurrency_max integer, rate_per_s double precision, burst integer) RETURNS void
    LANGUAGE plpgsql IMMUTABLE
    AS $$
declare
    faults jsonb := '[]';
begin
    if weight not between 1 and 1000 then
        faults := faults || jsonb_build_object('pointer', '/weight', 'message', 'must be from 1 to 1,000');
    end if;
    if concurrency_max not between 1 and 100000 then
        faults := faults || jsonb_build_object('pointer', '/concurrency_max', 'message',
            'must be from 1 to 100,000, or null for no limit; to stop a lane, pause it');
    end if;
    if rate_per_s not between 0.001 and 1000000 then
        faults := faults || jsonb_build_object('pointer', '/rate_per_s', 'message',
            'must be from 0.001 to 1,000,000, or null for no limit; to stop a lane, pause it');
    end if;
    if burst not between 1 and 1000000 then
        faults := faults || jsonb_build_object('pointer', '/burst', 'message', 'must be from 1 to 1,000,000');
    elsif burst is not null and rate_per_s is null then
        faults := faults || jsonb_build_object('pointer', '/burst', 'message', 'needs a rate_per_s');
    elsif burst < rate_per_s / 10 then
        faults := faults || jsonb_build_object('pointer', '/burst', 'message',
            'must be at least a tenth of rate_per_s: dispatchers come for tokens ten times a second');
    end if;
    if faults <> '[]' then
        raise exception using errcode = 'OBX01', detail = faults::text,
            message = (select string_agg(substr(f ->> 'pointer', 2) || ' ' || (f ->> 'message'), '; ')
                       from jsonb_array_elements(faults) as f);
    end if;
end
$$;

CREATE FUNCTION outbox.clean_jobs(for_queue text, for_tenant text, of_status text, older_than_s double precision, jobs_max integer, actor text, keep_last integer DEFAULT NULL::integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    before timestamptz := clock_timestamp() - make_interval(secs => older_than_s);
    ids bigint[];
    newest bigint := 9223372036854775807;
begin
    if not outbox.acts_for(coalesce(for_tenant, '*')) then
        raise exception using errcode = 'OBX03', detail = '[]',
            message = 'another tenant''s jobs, or those of all, need a service-wide key';
    end if;
    if keep_last is not null then
        -- The newest that may go: so many are kept above it.
        newest := coalesce((
            select j.id from outbox.job as j
            cross join lateral (select d.status from outbox.delivery as d
                                where d.id = j.id and d.terminal and not d.late order by d.series desc limit 1) as d
            where j.queue = for_queue and (for_tenant is null or j.tenant_id = for_tenant)
              and d.status = upper(of_status)
              and not exists (select from outbox.entry as e where e.id = j.id)
            order by j.id desc offset keep_last limit 1), 0);
    end if;
    ids := array(
        select j.id from outbox.job as j
        cross join lateral (select d.status, d.finished_at from outbox.delivery as d
                            where d.id = j.id and d.terminal and not d.late order by d.series desc limit 1) as d
        where j.id < outbox.id_floor(before) and j.id <= newest and j.queue = for_queue
          and (for_tenant is null or j.tenant_id = for_tenant)
          and d.status = upper(of_status) and d.finished_at < before
          and not exists (select from outbox.entry as e where e.id = j.id)
        order by j.id limit jobs_max
        for update of j skip locked);
    -- A retry locks its job too: one that was faster has an entry by now, later ones find the job gone.
    ids := array(select i.id from unnest(ids) as i(id)
                 where not exists (select from outbox.entry as e where e.id = i.id));
    delete from outbox.job_key as k using outbox.job as j
    where j.id = any(ids) and k.tenant_id = j.tenant_id and k.job_id in (j.job_id, j.list_job_id) and k.id <= j.id;
    with aliases as (
        delete from outbox.dedup_alias as a where a.id = any(ids) returning a.tenant_id, a.job_id
    )
    delete from outbox.job_key as k using aliases as a where k.tenant_id = a.tenant_id and k.job_id = a.job_id;
    delete from outbox.delivery as d where d.id = any(ids);
    delete from outbox.receipt as r where r.id = any(ids);
    delete from outbox.receipt_expected as r where r.id = any(ids);
    delete from outbox.inbox_message as m where m.id = any(ids);
    delete from outbox.job as j where j.id = any(ids);
    insert into outbox.operator_action (actor, action, tenant_id, detail)
    values (actor, 'clean', coalesce(for_tenant, '*'), jsonb_build_object('queue', for_queue, 'status', of_status,
            'older_than_s', older_than_s, 'keep_last', keep_last, 'limit', jobs_max, 'deleted', cardinality(ids),
            'before', jsonb_build_object('jobs', cardinality(ids)), 'after', jsonb_build_object('jobs', 0)));
    return cardinality(ids);
end
$$;

CREATE FUNCTION outbox.close_gaps(gaps_max integer, hold_max_s double precision) RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
    gap outbox.ordering_gap;
    closed bigint[] := '{}';
    lanes int[];
begin
    for gap in
        select g.* from outbox.ordering_gap as g
        where g.dead_id is null or (select s.ordering_on_failure from outbox.setting as s) = 'pass'
           or g.since < clock_timestamp() - make_interval(secs => hold_max_s)
        order by random() limit gaps_max for update skip locked
    loop
        if outbox.pass_on(gap.ordering_id, gap.place) then
            delete from outbox.ordering_gap as g where g.ordering_id = gap.ordering_id;
            closed := closed || gap.ordering_id;
        end if;
    end loop;
    lanes := array(select distinct e.lane_id from outbox.entry as e where e.ordering_id = any(closed) and e.lane_id > 0);
    if cardinality(lanes) > 0 then
        perform outbox.ring(lanes);
    end if;
    return cardinality(closed);
end
$$;

CREATE FUNCTION outbox.compare_keys(parsed outbox.parsed[], at timestamp with time zone) RETURNS outbox.compared[]
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION outbox.current_status(job bigint) RETURNS text
    LANGUAGE plpgsql STABLE
    AS $$
begin
    return coalesce(
        (select outbox.live_status(e.claimed_by, e.available_at, e.waits) from outbox.entry as e where e.id = job),
        (select outbox.ended_status(d.status) from outbox.delivery as d
         where d.id = job and d.terminal and not d.late order by d.series desc limit 1));
end
$$;

CREATE FUNCTION outbox.days_of(parent regclass) RETURNS TABLE(day date, child text, pending boolean, low bigint, high bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ select d.day, d.relname, d.inhdetachpending, outbox.id_floor(d.day::timestamp at time zone 'utc'),
                 outbox.id_floor((d.day + 1)::timestamp at time zone 'utc')
          from (select to_date(right(c.relname, 8), 'YYYYMMDD') as day, c.relname::text, i.inhdetachpending
                from pg_inherits as i join pg_class as c on c.oid = i.inhrelid
                where i.inhparent = parent) as d $$;

CREATE FUNCTION outbox.deduplicate(parsed outbox.parsed[], compared outbox.compared[], at timestamp with time zone, address_key bytea) RETURNS outbox.deduplicated
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
    news jsonb := (select coalesce(jsonb_object_agg(c.id, jsonb_build_array(c.job_id, c.status)), '{}')
                   from unnest(compared) as c where c.result = 'new');
    wanted record;
    kept_id bigint;
    kept_job uuid;
    kept_status text;
    judged outbox.deduplicated;
    replaced_ids bigint[] := '{}';
    replaced_by uuid[] := '{}';
    changed_ids bigint[] := '{}';
    changed_jobs uuid[] := '{}';
    changed_statuses text[] := '{}';
    changed_results text[] := '{}';
    changes jsonb;
begin
    for wanted in
        select p.id, p.tenant_id, p.job_id, p.job ->> 'dedup_policy' = 'replace' as replaces,
               outbox.key_hash(address_key, p.tenant_id, p.queue, p.dedup_key) as hash,
               at + make_interval(secs => (p.job ->> 'dedup_window_s')::int) as until
        from unnest(parsed) as p
        where p.dedup_key is not null and (p.expires_at is null or p.expires_at > at) and news ? p.id::text
        order by hash, p.ord
    loop
        insert into outbox.dedup as d (key_sha256, tenant_id, id, until)
        values (wanted.hash, wanted.tenant_id, wanted.id, wanted.until)
        on conflict (key_sha256) do update set id = excluded.id, until = excluded.until where d.until <= at;
        continue when found;
        select d.id into kept_id from outbox.dedup as d where d.key_sha256 = wanted.hash;
        if news ? kept_id::text then  -- of this very batch, and not stored yet
            kept_job := news -> kept_id::text ->> 0;
            kept_status := news -> kept_id::text ->> 1;
        else
            select j.job_id, outbox.current_status(j.id) into kept_job, kept_status
            from outbox.job as j where j.id = kept_id;
        end if;
        -- What somebody is claiming or withdrawing right now is not waited for, but kept.
        if kept_status is null or kept_status in ('failed', 'expired', 'cancelled') then
            kept_id := null;
        elsif wanted.replaces and kept_status <> 'sent' then
            perform from outbox.entry as e where e.id = kept_id and e.claimed_by is null for update skip locked;
            if found or news ? kept_id::text then
                replaced_ids := replaced_ids || kept_id;
                replaced_by := replaced_by || wanted.job_id;
                changed_ids := changed_ids || kept_id;
                changed_jobs := changed_jobs || kept_job;
                changed_statuses := changed_statuses || 'cancelled'::text;
                changed_results := changed_results || 'new'::text;
                kept_id := null;
            end if;
        end if;
        if kept_id is null then
            update outbox.dedup as d set id = wanted.id, until = wanted.until where d.key_sha256 = wanted.hash;
        else
            -- Its own job_id leads to the job that was kept: so does sending it once more.
            update outbox.job_key as k set id = kept_id
            where k.tenant_id = wanted.tenant_id and k.job_id = wanted.job_id;
            insert into outbox.dedup_alias (id, tenant_id, job_id) values (kept_id, wanted.tenant_id, wanted.job_id);
            changed_ids := changed_ids || wanted.id;
            changed_jobs := changed_jobs || kept_job;
            changed_statuses := changed_statuses || kept_status;
            changed_results := changed_results || 'duplicate'::text;
        end if;
    end loop;
    select coalesce(jsonb_object_agg(c.id, jsonb_build_array(c.result, c.job, c.status)), '{}') into changes
    from unnest(changed_ids, changed_results, changed_jobs, changed_statuses) as c(id, result, job, status);
    judged.compared := array(
        select case when changes ? c.id::text
                    then (c.ord, c.id, c.tenant_id, (changes -> c.id::text ->> 1)::uuid, c.member,
                          changes -> c.id::text ->> 2, changes -> c.id::text ->> 0, c.job_ids)::outbox.compared
                    else c end
        from unnest(compared) as c);
    judged.replaced_ids := replaced_ids;
    judged.replaced_by := replaced_by;
    return judged;
end
$$;

CREATE FUNCTION outbox.depth_faults(job jsonb) RETURNS outbox.fault[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY(SELECT ROW(outbox.pointer(e.key), 'must not nest deeper than 32 levels'::text)::outbox.fault AS "row" FROM jsonb_each(depth_faults.job) e(key, value) WHERE ((e.key = ANY (ARRAY['data'::text, 'meta'::text, 'payload'::text])) AND jsonb_path_exists(e.value, 'strict $.**{32}?(@.type() == "object" || @.type() == "array")'::jsonpath)));

CREATE FUNCTION outbox.destinations_changed() RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    update outbox.control set destinations = destinations + 1;
    perform pg_notify('outbox_bell', 'destinations');
end
$$;

CREATE FUNCTION outbox.differing(one jsonb, other jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN ((one IS NULL) OR (other IS NULL)) THEN one ELSE (SELECT COALESCE(jsonb_object_agg(k.key, k.value), '{}'::jsonb) AS "coalesce" FROM jsonb_each(differing.one) k(key, value) WHERE ((differing.other -> k.key) IS DISTINCT FROM k.value)) END;

CREATE FUNCTION outbox.drop_keys(compared outbox.compared[], refused integer[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    delete from outbox.job_key as k using unnest(compared) as c
    where c.ord = any(refused) and c.result = 'new'
      and k.tenant_id = c.tenant_id and k.job_id = c.job_id and k.id = c.id;
end
$$;

CREATE FUNCTION outbox.end_hold(held integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION outbox.ended_status(status text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN lower(status);

CREATE FUNCTION outbox.is_uuid(value text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((value ~~ '________-____-____-____-____________'::text) AND (value !~ '[^0-9a-fA-F-]'::text) AND (octet_length(replace(value, '-'::text, ''::text)) = 32));

CREATE TABLE outbox.endpoint (
    endpoint_id uuid DEFAULT gen_random_uuid() NOT NULL,
    tenant_id text NOT NULL,
    url text NOT NULL,
    description text,
    event_types text[] DEFAULT '{}'::text[] NOT NULL,
    secrets bytea NOT NULL,
    key_id text NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    disabled_reason text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

ALTER TABLE ONLY outbox.endpoint FORCE ROW LEVEL SECURITY;

CREATE FUNCTION outbox.endpoint_fault(job jsonb, channel text, tenant text) RETURNS outbox.fault
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN (channel IS DISTINCT FROM 'webhook'::text) THEN ROW('/endpoint'::text, 'is for webhooks alone'::text)::outbox.fault WHEN (job ? 'to'::text) THEN ROW('/endpoint'::text, 'cannot be combined with to'::text)::outbox.fault WHEN ((jsonb_typeof((job -> 'endpoint'::text)) <> 'string'::text) OR (NOT outbox.is_uuid((job ->> 'endpoint'::text))) OR (NOT (EXISTS (SELECT FROM outbox.endpoint e WHERE ((e.tenant_id = endpoint_fault.tenant) AND (e.endpoint_id = ((endpoint_fault.job ->> 'endpoint'::text))::uuid)))))) THEN ROW('/endpoint'::text, 'no such endpoint'::text)::outbox.fault ELSE NULL::outbox.fault END;

CREATE FUNCTION outbox.enqueue(job jsonb, tenant text DEFAULT 'default'::text, notify boolean DEFAULT false, on_conflict text DEFAULT 'raise'::text, OUT job_id uuid, OUT status text, OUT duplicate boolean, OUT job_ids uuid[]) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    result outbox.enqueued := outbox.enqueue_v1(job, tenant, on_conflict, notify => notify);
begin
    job_id := result.job_id;
    status := result.status;
    duplicate := result.result <> 'new';
    job_ids := result.job_ids;
end
$$;

COMMENT ON FUNCTION outbox.enqueue(job jsonb, tenant text, notify boolean, on_conflict text, OUT job_id uuid, OUT status text, OUT duplicate boolean, OUT job_ids uuid[]) IS 'Accept one NotificationJob in this transaction.';

CREATE FUNCTION outbox.enqueue_any(jobs jsonb[], tenant text, on_conflict text, on_fault text, fill_created boolean, notify boolean, at timestamp with time zone, traceparents text[], resend_of uuid) RETURNS SETOF outbox.enqueued
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION outbox.enqueue_many(jobs jsonb[], tenant text DEFAULT 'default'::text, notify boolean DEFAULT false, on_conflict text DEFAULT 'raise'::text) RETURNS TABLE(job_id uuid, status text, duplicate boolean, conflict boolean, job_ids uuid[])
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    return query
    select e.job_id, e.status, e.result = 'duplicate', e.result = 'conflict', e.job_ids
    from outbox.enqueue_many_v1(enqueue_many.jobs, enqueue_many.tenant, on_conflict => enqueue_many.on_conflict,
                                notify => enqueue_many.notify) as e
    order by e.ord;
end
$$;

COMMENT ON FUNCTION outbox.enqueue_many(jobs jsonb[], tenant text, notify boolean, on_conflict text) IS 'Accept many NotificationJobs in this transaction: a result each, in order.';

CREATE FUNCTION outbox.enqueue_many_v1(jobs jsonb[], tenant text DEFAULT 'default'::text, on_conflict text DEFAULT 'raise'::text, on_fault text DEFAULT 'raise'::text, fill_created boolean DEFAULT false, notify boolean DEFAULT false, traceparents text[] DEFAULT NULL::text[], resend_of uuid DEFAULT NULL::uuid) RETURNS SETOF outbox.enqueued
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

COMMENT ON FUNCTION outbox.enqueue_many_v1(jobs jsonb[], tenant text, on_conflict text, on_fault text, fill_created boolean, notify boolean, traceparents text[], resend_of uuid) IS 'Accept jobs in the caller''s transaction: one result each, in order. See docs/contracts.md.';

CREATE FUNCTION outbox.enqueue_typical(sent jsonb, tenant text, fill_created boolean, at timestamp with time zone, notify boolean, traceparent text, resend_of uuid) RETURNS outbox.enqueued
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION outbox.enqueue_v1(job jsonb, tenant text DEFAULT 'default'::text, on_conflict text DEFAULT 'raise'::text, fill_created boolean DEFAULT false, notify boolean DEFAULT false, traceparent text DEFAULT NULL::text) RETURNS outbox.enqueued
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
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

COMMENT ON FUNCTION outbox.enqueue_v1(job jsonb, tenant text, on_conflict text, fill_created boolean, notify boolean, traceparent text) IS 'enqueue_many_v1 for one job: the same, at less cost.';

CREATE FUNCTION outbox.erase_recipient(for_tenant text, for_user text, actor text) RETURNS TABLE(pseudonym text, jobs integer, cancelled integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION outbox.expand_lists(parsed outbox.parsed[]) RETURNS outbox.parsed[]
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION outbox.fill_in_action() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
declare
    noted text := current_setting('outbox.changes', true);
    why text := current_setting('outbox.reason', true);
begin
    if noted <> '' then
        new.detail := case when jsonb_array_length(noted::jsonb) = 1 then (noted::jsonb -> 0) - 'what'
                           else jsonb_build_object('changes', noted::jsonb) end || new.detail;
        perform set_config('outbox.changes', '', true);
    end if;
    if why <> '' and new.detail -> 'reason' is null then
        new.detail := new.detail || jsonb_build_object('reason', why);
    end if;
    return new;
end
$$;

CREATE TABLE outbox.job (
    id bigint NOT NULL,
    job_id uuid NOT NULL,
    created_at timestamp with time zone NOT NULL,
    send_after timestamp with time zone,
    expires_at timestamp with time zone,
    lane_id integer NOT NULL,
    priority smallint NOT NULL,
    test boolean DEFAULT (NOT (current_setting('outbox.mode'::text, true) IS DISTINCT FROM 'test'::text)) NOT NULL,
    tenant_id text NOT NULL,
    queue text NOT NULL,
    channel text,
    template_code text,
    locale text,
    user_id text,
    event_id text,
    campaign_id text,
    category text,
    traceparent text,
    resend_of uuid,
    list_job_id uuid,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    job jsonb NOT NULL,
    CONSTRAINT job_priority_check CHECK ((priority = ANY (ARRAY[0, 1, 5, 10])))
)
PARTITION BY RANGE (id);

ALTER TABLE ONLY outbox.job FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.job_key (
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    id bigint NOT NULL,
    content_sha256 bytea NOT NULL
)
PARTITION BY HASH (tenant_id, job_id);

ALTER TABLE ONLY outbox.job_key FORCE ROW LEVEL SECURITY;

CREATE FUNCTION outbox.find_job(tenant text, wanted uuid) RETURNS bigint
    LANGUAGE sql STABLE
    RETURN (SELECT j.id FROM (outbox.job_key k JOIN outbox.job j ON ((j.id = k.id))) WHERE ((k.job_id = find_job.wanted) AND ((k.tenant_id = find_job.tenant) OR (find_job.tenant IS NULL))) LIMIT 1);

CREATE TABLE outbox.dead_letter (
    dead_letter_id bigint NOT NULL,
    failed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    id bigint,
    job_id uuid,
    series smallint,
    attempts smallint,
    tenant_id text NOT NULL,
    queue text,
    reason text NOT NULL,
    error_class text,
    error_code text,
    error_message text NOT NULL,
    test boolean DEFAULT false NOT NULL,
    job jsonb,
    raw_value text,
    replayed_at timestamp with time zone,
    replayed_by text,
    CONSTRAINT dead_letter_check CHECK (((job IS NULL) <> (raw_value IS NULL))),
    CONSTRAINT dead_letter_reason_check CHECK ((reason = ANY (ARRAY['exhausted'::text, 'permanent'::text, 'invalid'::text, 'manual'::text])))
);

ALTER TABLE ONLY outbox.dead_letter FORCE ROW LEVEL SECURITY;

CREATE FUNCTION outbox.fits_replay(d outbox.dead_letter, filter jsonb) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN ((((filter ->> 'queue'::text) IS NULL) OR ((d).queue = (filter ->> 'queue'::text))) AND (((filter ->> 'reason'::text) IS NULL) OR ((d).reason = (filter ->> 'reason'::text))) AND (((filter ->> 'error_class'::text) IS NULL) OR ((d).error_class = (filter ->> 'error_class'::text))) AND (((filter ->> 'error_code'::text) IS NULL) OR ((d).error_code = (filter ->> 'error_code'::text))) AND (((filter ->> 'template_code'::text) IS NULL) OR (((d).job ->> 'template_code'::text) = (filter ->> 'template_code'::text))) AND (((filter ->> 'campaign_id'::text) IS NULL) OR ((((d).job -> 'meta'::text) ->> 'campaign_id'::text) = (filter ->> 'campaign_id'::text))) AND (((filter ->> 'since'::text) IS NULL) OR ((d).failed_at >= ((filter ->> 'since'::text))::timestamp with time zone)) AND (((filter ->> 'until'::text) IS NULL) OR ((d).failed_at < ((filter ->> 'until'::text))::timestamp with time zone)));

CREATE FUNCTION outbox.from_priority(value smallint) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN CASE value WHEN 0 THEN 'low'::text WHEN 1 THEN 'normal'::text WHEN 5 THEN 'high'::text WHEN 10 THEN 'urgent'::text ELSE NULL::text END;

CREATE TABLE outbox.entry (
    id bigint NOT NULL,
    available_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone,
    lease_until timestamp with time zone,
    claimed_at timestamp with time zone,
    claimed_by bigint,
    ordering_id bigint,
    place bigint,
    lane_id integer NOT NULL,
    lease_no integer DEFAULT 0 NOT NULL,
    priority smallint NOT NULL,
    series smallint DEFAULT 1 NOT NULL,
    attempt smallint DEFAULT 0 NOT NULL,
    max_attempts smallint,
    crashes smallint DEFAULT 0 NOT NULL,
    waits smallint DEFAULT 0 NOT NULL,
    cancel boolean DEFAULT false NOT NULL,
    erased boolean DEFAULT false NOT NULL,
    CONSTRAINT entry_priority_check CHECK ((priority = ANY (ARRAY[0, 1, 5, 10]))),
    CONSTRAINT entry_waits_check CHECK (((waits >= 0) AND (waits <= 4)))
)
WITH (fillfactor='42', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='2000', autovacuum_vacuum_cost_delay='0', autovacuum_analyze_scale_factor='0.2');

ALTER TABLE ONLY outbox.entry FORCE ROW LEVEL SECURITY;

CREATE FUNCTION outbox.has_live(low bigint, high bigint) RETURNS boolean
    LANGUAGE sql STABLE
    RETURN (EXISTS (SELECT FROM outbox.entry e WHERE ((e.id >= has_live.low) AND (e.id < has_live.high))));

CREATE FUNCTION outbox.head_ended() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    if (select s.ordering_on_failure from outbox.setting as s) = 'hold'
       and exists (select from outbox.delivery as d
                   where d.id = old.id and d.series = old.series and d.terminal and not d.late and d.status = 'FAILED') then
        insert into outbox.ordering_gap (ordering_id, place, dead_id) values (old.ordering_id, old.place, old.id);
    elsif current_setting('transaction_isolation') <> 'read committed'
          or not outbox.pass_on(old.ordering_id, old.place) then
        insert into outbox.ordering_gap (ordering_id, place) values (old.ordering_id, old.place);
    end if;
    return null;
end
$$;

CREATE FUNCTION outbox.headers_faults(headers jsonb) RETURNS outbox.fault[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $_$
declare
    faults outbox.fault[] := '{}';
    key text;
    value jsonb;
begin
    if jsonb_typeof(headers) <> 'object' then
        return array[('/headers', 'must be an object')::outbox.fault];
    end if;
    if (select count(*) from jsonb_object_keys(headers)) > 50 then
        return array[('/headers', 'must have at most 50 members')::outbox.fault];
    end if;
    for key, value in select h.key, h.value from jsonb_each(headers) as h loop
        if key !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]{1,128}$' then
            faults := faults || ('/headers' || outbox.pointer(key), 'is no valid header name')::outbox.fault;
        elsif jsonb_typeof(value) <> 'string' then
            faults := faults || ('/headers' || outbox.pointer(key), 'must be a string')::outbox.fault;
        elsif (value #>> '{}') ~ '[\x01-\x08\x0a-\x1f\x7f]' or char_length(value #>> '{}') > 4096 then
            faults := faults || ('/headers' || outbox.pointer(key),
                                 'must be one line of at most 4096 characters')::outbox.fault;
        end if;
    end loop;
    return faults;
end
$_$;

CREATE FUNCTION outbox.hold_lane(for_tenant text, for_queue text, for_scope text, code text, reason text, first_probe_s double precision) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION outbox.id_floor(at timestamp with time zone) RETURNS bigint
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN ((((EXTRACT(epoch FROM at) * (1000)::numeric))::bigint - '1577836800000'::bigint) << 22);

COMMENT ON FUNCTION outbox.id_floor(at timestamp with time zone) IS 'The lowest id that a job accepted at that time can have.';

CREATE FUNCTION outbox.id_of(tenant text, job_id uuid) RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN (SELECT k.id FROM outbox.job_key k WHERE ((k.tenant_id = id_of.tenant) AND (k.job_id = id_of.job_id)));

COMMENT ON FUNCTION outbox.id_of(tenant text, job_id uuid) IS 'The internal id of a job: the views find one job fast by `where id = outbox.id_of(…)`.';

CREATE FUNCTION outbox.id_time(id bigint) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN to_timestamp((((((id >> 22) + '1577836800000'::bigint))::numeric / 1000.0))::double precision);

COMMENT ON FUNCTION outbox.id_time(id bigint) IS 'When the job with this id was accepted, to the millisecond.';

CREATE FUNCTION outbox.uuid5(namespace uuid, name text) RETURNS uuid
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    hash bytea := substr(outbox.sha1(uuid_send(namespace) || convert_to(name, 'UTF8')), 1, 16);
begin
    hash := set_byte(hash, 6, (get_byte(hash, 6) & 15) | 80);
    hash := set_byte(hash, 8, (get_byte(hash, 8) & 63) | 128);
    return encode(hash, 'hex')::uuid;
end
$$;

CREATE FUNCTION outbox.idempotent_job_id(tenant text, idempotency_key text) RETURNS uuid
    LANGUAGE sql IMMUTABLE STRICT SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN outbox.uuid5('6b2f9a52-8f3d-5c1e-9d0a-2f1f6d1c7a10'::uuid, ((tenant || ':'::text) || idempotency_key));

CREATE FUNCTION outbox.in_test_mode() RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (NOT (current_setting('outbox.mode'::text, true) IS DISTINCT FROM 'test'::text));

CREATE FUNCTION outbox.in_three_digits(number numeric) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (round(number, (2 - (floor(log(GREATEST(number, (1)::numeric))))::integer)))::bigint;

CREATE FUNCTION outbox.is_erased(wanted bigint) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    said boolean;
begin
    select j.job ? 'erased' into said from outbox.job as j where j.id = wanted for share;
    return coalesce(said, false);
end
$$;

CREATE FUNCTION outbox.is_test_lane(scope text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((scope = 'test'::text) OR starts_with(scope, 'test:'::text));

CREATE FUNCTION outbox.is_typical(job jsonb, user_id text, channel text, template_code text, locale text, meta jsonb, event_id text, campaign_id text, priority text, said_id text, job_id uuid) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((user_id <> ''::text) AND (template_code <> ''::text) AND ((said_id IS NULL) OR (job_id IS NOT NULL)) AND (channel = ANY ('{email,push,ws,sms,telegram,inbox,browser}'::text[])) AND ((priority = ANY ('{low,normal,medium,high,urgent}'::text[])) OR (priority IS NULL)) AND ((job - '{user_id,channel,template_code,locale,data,meta,created_at,send_after,expires_at}'::text[]) = '{}'::jsonb) AND (job @@ '((((((($."user_id".type() == "string" && $."template_code".type() == "string") && $."data".type() == "object") && $."meta".type() == "object") && (!(exists ($."locale")) || $."locale".type() == "string")) && ((!(exists ($."meta"."event_type")) || $."meta"."event_type".type() == "string") || $."meta"."event_type".type() == "null")) && ((!(exists ($."meta"."event_id")) || $."meta"."event_id".type() == "string") || $."meta"."event_id".type() == "null")) && ((!(exists ($."meta"."campaign_id")) || $."meta"."campaign_id".type() == "string") || $."meta"."campaign_id".type() == "null"))'::jsonpath) AND (GREATEST(octet_length(user_id), octet_length(template_code), octet_length((meta ->> 'event_type'::text)), octet_length(event_id), octet_length(campaign_id)) <= 128) AND ((locale IS NULL) OR ((locale !~ '[^A-Za-z0-9_-]'::text) AND ((octet_length(locale) >= 1) AND (octet_length(locale) <= 35)))) AND (NOT jsonb_path_exists(job, 'strict $.*.**{32}?(@.type() == "object" || @.type() == "array")'::jsonpath)));

CREATE FUNCTION outbox.key_faults(job jsonb, window_s_max integer) RETURNS outbox.fault[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $_$
begin
    return array[
        outbox.text_fault(job, 'ordering_key', 255),
        outbox.text_fault(job, 'dedup_key', 255),
        case when job ?| array['dedup_window_s', 'dedup_policy'] and not job ? 'dedup_key'
            then ('/dedup_key', 'is required beside dedup_window_s and dedup_policy')::outbox.fault
        when job ? 'dedup_key' and jsonb_typeof(job -> 'to') = 'array'
            then ('/dedup_key', 'cannot be combined with a list of addresses')::outbox.fault end,
        case when job ? 'dedup_window_s' then
            -- (Read as text, as max_attempts is.)
            case when jsonb_typeof(job -> 'dedup_window_s') <> 'number' or job ->> 'dedup_window_s' !~ '^[1-9][0-9]{0,8}$'
                      or (job ->> 'dedup_window_s')::int > window_s_max
                then ('/dedup_window_s', format('must be a whole number from 1 to %s', window_s_max))::outbox.fault end
        when job ? 'dedup_key'
            then ('/dedup_window_s', 'is required beside dedup_key')::outbox.fault end,
        case when job ? 'dedup_policy' and job -> 'dedup_policy' not in ('"keep"', '"replace"')
            then ('/dedup_policy', 'must be keep or replace')::outbox.fault end
    ];
end
$_$;

CREATE FUNCTION outbox.key_hash(address_key bytea, tenant text, queue text, key text) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN sha256((address_key || convert_to(((((((char_length(tenant) || ':'::text) || tenant) || char_length(queue)) || ':'::text) || queue) || key), 'UTF8'::name)));

CREATE FUNCTION outbox.lane_of(for_tenant text, for_queue text, for_scope text DEFAULT ''::text) RETURNS integer
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION outbox.lanes_of(parsed outbox.parsed[]) RETURNS integer[]
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION outbox.lease_limits(for_epoch bigint, lane_ids integer[], destinations text[], in_use integer[], wanted integer[], back double precision[]) RETURNS TABLE(lane_id integer, destination text, places integer, tokens integer, wait_s double precision)
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
    names text[] := array(select coalesce(a.d, 'lane:' || a.l) from unnest(lane_ids, destinations) as a(l, d) order by 1);
    at timestamptz;
begin
    insert into outbox.bucket (name)
    select n from unnest(names) as n where not exists (select from outbox.bucket as b where b.name = n)
    on conflict (name) do nothing;
    -- A statement of its own: what comes after it sees all that was done before the lock was ours.
    perform from outbox.bucket as b where b.name = any(names) order by b.name for update;
    at := clock_timestamp();
    delete from outbox.lane_share as s
    where s.lane_id = any(lane_ids)
      and not exists (select from outbox.dispatcher as d where d.epoch = s.epoch and d.rescued_at is null);
    return query
    with asked as materialized (
        select a.lane_id, a.destination, coalesce(a.destination, 'lane:' || a.lane_id) as name, a.in_use, a.wanted, a.back,
               l.concurrency_max, coalesce(l.rate_per_s, d.rate_per_s) as rate_per_s,
               coalesce(l.burst, d.burst, ceil(coalesce(l.rate_per_s, d.rate_per_s))) as burst,
               greatest(extract(epoch from greatest(d.paused_until, d.open_until) - at)::float8, 0) as paused_s,
               d.open_until is not null as half_open, greatest(extract(epoch from d.probe_until - at)::float8, 0) as probe_s
        from unnest(lane_ids, destinations, in_use, wanted, back) as a(lane_id, destination, in_use, wanted, back)
        left join outbox.lane as l on l.lane_id = a.lane_id
        left join outbox.destination as d on d.name = a.destination
    ), others as materialized (
        select a.lane_id, sum(s.places)::int as places,
               sum(least(s.wanted, a.concurrency_max / (o.claimants + 1)))::int as due
        from asked as a
        join outbox.lane_share as s on s.lane_id = a.lane_id and s.epoch <> for_epoch
        cross join lateral (select count(*)::int as claimants from outbox.lane_share as o
                            where o.lane_id = a.lane_id and o.epoch <> for_epoch and o.wanted > 0) as o
        group by a.lane_id
    ), shared as materialized (
        select a.lane_id, a.in_use + a.wanted as wanted,
               greatest(a.in_use, least(a.in_use + a.wanted, a.concurrency_max - coalesce(o.due, 0),
                                        a.concurrency_max - coalesce(o.places, 0))) as places
        from asked as a
        left join others as o on o.lane_id = a.lane_id
        where a.concurrency_max is not null
    ), kept as (
        insert into outbox.lane_share as s (lane_id, epoch, places, wanted)
        select h.lane_id, for_epoch, h.places, h.wanted from shared as h where h.wanted > 0
        on conflict (lane_id, epoch) do update set places = excluded.places, wanted = excluded.wanted
        where (s.places, s.wanted) is distinct from (excluded.places, excluded.wanted)
    ), given_back as (
        delete from outbox.lane_share as s using asked as a
        where s.lane_id = a.lane_id and s.epoch = for_epoch and (a.in_use + a.wanted = 0 or a.concurrency_max is null)
    ), filled as materialized (
        select a.name, a.back,
               least(a.burst, b.tokens + a.back + a.rate_per_s * greatest(extract(epoch from at - b.filled_at)::float8, 0))
                   as tokens,
               least(a.wanted, coalesce(h.places - a.in_use, a.wanted), greatest(1, a.rate_per_s)) as wanted,
               greatest(1, least(a.burst, a.rate_per_s / 4)) as worth_asking, a.rate_per_s, a.paused_s, a.half_open,
               a.probe_s
        from asked as a
        join outbox.bucket as b on b.name = a.name
        left join shared as h on h.lane_id = a.lane_id
        where a.rate_per_s is not null or a.half_open
    ), given as materialized (
        -- A breaker that is half open lets one through at a time, over the fleet.
        select f.*,
               case when f.paused_s > 0 then 0
                    when f.half_open then case when f.probe_s > 0 then 0
                                               else floor(greatest(0, least(f.wanted, 1, coalesce(f.tokens, 1))))::int end
                    else floor(greatest(0, least(f.wanted, f.tokens)))::int end as given
        from filled as f
    ), drawn as (
        update outbox.bucket as b set tokens = g.tokens - g.given, filled_at = at
        from given as g where b.name = g.name and g.rate_per_s is not null and (g.given > 0 or g.back <> 0)
    ), probing as (
        update outbox.destination as d
        set probe_until = case when g.given > 0 then at + make_interval(secs => outbox.probe_s()) end
        from given as g where d.name = g.name and g.half_open and (g.given > 0 or g.back > 0 and g.probe_s > 0)
    )
    select a.lane_id, a.destination, h.places, g.given,
           case when g.paused_s > 0 then g.paused_s
                when g.half_open then case when g.given > 0 then outbox.probe_s() else least(greatest(g.probe_s, 0.1), 1) end
                else greatest(0, coalesce((g.worth_asking - (g.tokens - g.given)) / g.rate_per_s, 0)) end
    from asked as a
    left join shared as h on h.lane_id = a.lane_id
    left join given as g on g.name = a.name;
end
$$;

CREATE FUNCTION outbox.limits_now(wanted integer) RETURNS TABLE(weight integer, concurrency_max integer, places_taken integer, rate_per_s double precision, burst integer, tokens double precision, destination text, destination_rate_per_s double precision, destination_tokens double precision, destination_paused_until timestamp with time zone, destination_open_until timestamp with time zone, destination_opened_at timestamp with time zone)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ select m.weight::int, m.concurrency_max,
                 (select coalesce(sum(s.places), 0)::int from outbox.lane_share as s
                  join outbox.dispatcher as d on d.epoch = s.epoch and d.rescued_at is null
                  where s.lane_id = m.lane_id),
                 m.rate_per_s, m.burst, outbox.tokens_now('lane:' || m.lane_id, m.rate_per_s, m.burst),
                 d.name, d.rate_per_s, outbox.tokens_now(d.name, d.rate_per_s, d.burst),
                 case when d.paused_until > clock_timestamp() then d.paused_until end, d.open_until, d.opened_at
          from outbox.lane as l
          join outbox.lane as m on m.tenant_id = l.tenant_id and m.queue = l.queue and m.scope = ''
          left join outbox.destination as d on l.scope = 'destination:' || d.name
          where l.lane_id = wanted and outbox.acts_for(l.tenant_id) $$;

CREATE FUNCTION outbox.list_destinations(wanted text DEFAULT NULL::text) RETURNS TABLE(name text, breaker text, rate_per_s double precision, burst integer, tokens double precision, paused_until timestamp with time zone, opened_at timestamp with time zone, open_until timestamp with time zone, good integer, bad integer, changed_at timestamp with time zone)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ select n.name,
                 case when d.open_until is null then 'closed' when d.open_until > clock_timestamp() then 'open'
                      else 'half_open' end,
                 d.rate_per_s, d.burst, outbox.tokens_now(d.name, d.rate_per_s, d.burst),
                 case when d.paused_until > clock_timestamp() then d.paused_until end, d.opened_at, d.open_until,
                 coalesce(h.good, 0)::int, coalesce(h.bad, 0)::int, d.changed_at
          from (select o.name from outbox.destination as o union select o.name from outbox.destination_health as o) as n
          left join outbox.destination as d on d.name = n.name
          left join lateral (select sum(o.good) as good, sum(o.bad) as bad from outbox.destination_health as o
                             where o.name = n.name and o.told_at > clock_timestamp() - interval '60 s') as h on true
          where (d.rate_per_s is not null or d.paused_until > clock_timestamp() or d.open_until is not null or h.bad > 0)
            and (wanted is null or n.name = wanted) and outbox.acts_for('*')
          order by n.name limit 10000 $$;

CREATE FUNCTION outbox.live_status(claimed_by bigint, available_at timestamp with time zone, waits smallint) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN (claimed_by IS NOT NULL) THEN 'processing'::text WHEN (available_at <= clock_timestamp()) THEN 'pending'::text WHEN (waits = 1) THEN 'retrying'::text WHEN (waits >= 3) THEN 'pending'::text ELSE 'scheduled'::text END;

CREATE FUNCTION outbox.look_up(named outbox.named) RETURNS outbox.named
    LANGUAGE plpgsql STABLE
    AS $$
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

CREATE FUNCTION outbox.make_lanes() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION outbox.make_partitions(days_ahead integer DEFAULT 14, now timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
declare
    parent text;
    first_day date := (coalesce(now, clock_timestamp()) at time zone 'utc')::date - 1;
    day date;
    child text;
    low bigint;
    high bigint;
    made int := 0;
begin
    perform pg_advisory_xact_lock(hashtextextended('outbox.make_partitions', 0));
    foreach parent in array array['job', 'delivery'] loop
        for day in select first_day + n from generate_series(0, days_ahead + 1) as n loop
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            if to_regclass(format('outbox.%I', child)) is not null then
                continue;
            end if;
            low := outbox.id_floor(day::timestamp at time zone 'utc');
            high := outbox.id_floor((day + 1)::timestamp at time zone 'utc');
            execute format('create table outbox.%I (like outbox.%I including defaults including constraints,
                            constraint in_day check (id >= %s and id < %s))', child, parent, low, high);
            execute format('alter table outbox.%I attach partition outbox.%I for values from (%s) to (%s)',
                           parent, child, low, high);
            execute format('alter table outbox.%I drop constraint in_day', child);
            made := made + 1;
        end loop;
    end loop;
    return made;
end
$$;

COMMENT ON FUNCTION outbox.make_partitions(days_ahead integer, now timestamp with time zone) IS 'Create the daily partitions that are missing up to so many days ahead; returns how many it made.';

CREATE FUNCTION outbox.miss_receipts(overdue_s double precision, batch integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE SEQUENCE outbox.id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 32;

CREATE FUNCTION outbox.next_id() RETURNS bigint
    LANGUAGE sql
    RETURN (outbox.id_floor(clock_timestamp()) | (nextval('outbox.id_seq'::regclass) & (4194303)::bigint));

CREATE FUNCTION outbox.next_version() RETURNS bigint
    LANGUAGE sql
    AS $$ update outbox.control set version = version + 1 returning version $$;

CREATE FUNCTION outbox.note_change() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
declare
    is_person boolean := tg_table_name in ('recipient', 'device', 'suppression');
    old_row jsonb := case when tg_op <> 'INSERT' then to_jsonb(old) end;
    new_row jsonb := case when tg_op <> 'DELETE' then to_jsonb(new) end;
    was jsonb := case when is_person then outbox.told_of_person(old_row) else outbox.told_of(tg_table_name, old_row) end;
    is_now jsonb := case when is_person then outbox.told_of_person(new_row, old_row)
                         else outbox.told_of(tg_table_name, new_row) end;
    noted jsonb := coalesce(nullif(current_setting('outbox.changes', true), ''), '[]')::jsonb;
begin
    if was is not distinct from is_now or jsonb_array_length(noted) >= 50 then
        return null;
    end if;
    if tg_table_name = 'template' and tg_op = 'INSERT' and (is_now ->> 'version')::int > 1 then
        was := jsonb_build_object('version', (is_now ->> 'version')::int - 1);  -- which is kept
    end if;
    perform set_config('outbox.changes', (noted || jsonb_build_object(
        'what', tg_table_name, 'before', outbox.differing(was, is_now), 'after', outbox.differing(is_now, was)))::text, true);
    return null;
end
$$;

CREATE TABLE outbox.delivery (
    id bigint NOT NULL,
    started_at timestamp with time zone,
    finished_at timestamp with time zone NOT NULL,
    next_attempt_at timestamp with time zone,
    epoch bigint,
    recipient_hash bigint,
    lease_no integer NOT NULL,
    lane_id integer,
    duration_ms integer,
    template_version integer,
    series smallint NOT NULL,
    attempt smallint NOT NULL,
    late boolean DEFAULT false NOT NULL,
    terminal boolean NOT NULL,
    status text NOT NULL,
    tenant_id text NOT NULL,
    provider text,
    provider_message_id text,
    recipient text,
    subject text,
    locale text,
    error_class text,
    error_code text,
    error_message text,
    content_sha256 bytea,
    content bytea,
    CONSTRAINT delivery_status_check CHECK ((status = ANY (ARRAY['SENT'::text, 'FAILED'::text, 'RETRYING'::text, 'EXPIRED'::text, 'CANCELLED'::text])))
)
PARTITION BY RANGE (id);

ALTER TABLE ONLY outbox.delivery FORCE ROW LEVEL SECURITY;

CREATE FUNCTION outbox.partition_days_left(now timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS integer
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN (SELECT (min(n.days))::integer AS min FROM ((VALUES ('outbox.job'::regclass), ('outbox.delivery'::regclass)) p(parent) CROSS JOIN LATERAL (SELECT count(*) AS days FROM outbox.days_of(p.parent) d(day, child, pending, low, high) WHERE (d.day > ((COALESCE(partition_days_left.now, clock_timestamp()) AT TIME ZONE 'utc'::text))::date)) n));

CREATE FUNCTION outbox.pass_on(of_ordering bigint, after_place bigint) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
declare
    next_id bigint;
begin
    select e.id into next_id from outbox.entry as e
    where e.ordering_id = of_ordering and e.place > after_place
    order by e.place limit 1;
    if found then
        -- Producers that hold the lock have later places, so this is the one.
        perform from outbox.entry as e where e.id = next_id and e.lane_id < 0 for update skip locked;
        if found then
            update outbox.entry as e
            set lane_id = -e.lane_id, available_at = greatest(e.available_at, clock_timestamp())
            where e.id = next_id;
        end if;
        return found;
    end if;
    perform from outbox.ordering as o where o.ordering_id = of_ordering for update skip locked;
    if not found or exists (select from outbox.entry as e where e.ordering_id = of_ordering and e.place > after_place) then
        return false;
    end if;
    delete from outbox.ordering as o where o.ordering_id = of_ordering;
    return true;
end
$$;

CREATE FUNCTION outbox.pause_destination(wanted text, pause_s double precision) RETURNS timestamp with time zone
    LANGUAGE plpgsql
    AS $$
declare
    until timestamptz;
begin
    insert into outbox.destination as d (name, paused_until)
    values (wanted, clock_timestamp() + make_interval(secs => pause_s))
    on conflict (name) do update set paused_until = greatest(d.paused_until, excluded.paused_until)
    returning paused_until into until;
    perform outbox.prune_destinations();
    perform outbox.destinations_changed();
    return until;
end
$$;

CREATE FUNCTION outbox.payload_priority(value jsonb) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (CASE WHEN ((jsonb_typeof(value) = 'number'::text) AND ((value #>> '{}'::text[]) ~ '^([1-9]|10)$'::text)) THEN CASE WHEN (((value #>> '{}'::text[]))::integer <= 2) THEN 0 WHEN (((value #>> '{}'::text[]))::integer <= 5) THEN 1 WHEN (((value #>> '{}'::text[]))::integer <= 8) THEN 5 ELSE 10 END ELSE NULL::integer END)::smallint;

CREATE FUNCTION outbox.pickup_bounds_s() RETURNS double precision[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY[(0.001)::double precision, (0.0025)::double precision, (0.005)::double precision, (0.01)::double precision, (0.025)::double precision, (0.05)::double precision, (0.1)::double precision, (0.25)::double precision, (0.5)::double precision, (1)::double precision, (2.5)::double precision, (5)::double precision, (10)::double precision, (30)::double precision, (60)::double precision, (300)::double precision];

CREATE FUNCTION outbox.plain_meta(job jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (jsonb_typeof((job -> 'meta'::text)) = 'object'::text) THEN jsonb_build_object('meta', (SELECT COALESCE(jsonb_object_agg(m.key, m.value), '{}'::jsonb) AS "coalesce" FROM jsonb_each((plain_meta.job -> 'meta'::text)) m(key, value) WHERE (m.key = ANY (ARRAY['event_type'::text, 'event_id'::text, 'campaign_id'::text, 'priority'::text])))) ELSE '{}'::jsonb END;

CREATE FUNCTION outbox.plan_replay(for_tenant text, filter jsonb, jobs_max integer, looked_max integer DEFAULT 20000) RETURNS jsonb
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    matched bigint;
    numbers bigint[];
    counts jsonb;
    sample jsonb;
    sendable int;
begin
    if not outbox.acts_for(for_tenant) then
        raise exception using errcode = 'OBX03', detail = '[]', message = 'another tenant''s dead letters';
    end if;
    select count(*), (array_agg(d.dead_letter_id order by d.dead_letter_id))[1:looked_max] into matched, numbers
    from outbox.dead_letter as d
    where (for_tenant = '*' or d.tenant_id = for_tenant) and outbox.fits_replay(d, filter);
    with outlook as materialized (
        select * from outbox.replay_outlook(coalesce(numbers, '{}'))
    )
    select jsonb_build_object('would_send', count(*) filter (where o.verdict = 'would_send'),
                              'expired', count(*) filter (where o.verdict = 'expired'),
                              'duplicate', count(*) filter (where o.verdict = 'duplicate'),
                              'suppressed', count(*) filter (where o.verdict = 'suppressed'),
                              'gone', count(*) filter (where o.verdict = 'gone'), 'looked_at', count(*)),
           (select coalesce(jsonb_agg(s.line order by s.dead_letter_id), '[]')
            from (select f.dead_letter_id,
                         jsonb_build_object('dead_letter_id', f.dead_letter_id, 'verdict', f.verdict,
                             'job_id', d.job_id, 'queue', d.queue, 'template_code', d.job ->> 'template_code',
                             'error_code', d.error_code, 'failed_at', d.failed_at) as line
                  from (select x.*, row_number() over (partition by x.verdict order by x.dead_letter_id) as n
                        from outlook as x) as f
                  join outbox.dead_letter as d on d.dead_letter_id = f.dead_letter_id
                  where f.n <= case f.verdict when 'would_send' then 5 else 2 end) as s)
    into counts, sample from outlook as o;
    sendable := (counts ->> 'would_send')::int;
    return counts || jsonb_build_object('matched', matched, 'complete', matched <= looked_max, 'sample', sample,
                                        'would_send', least(sendable, coalesce(jobs_max, sendable)));
end
$$;

CREATE FUNCTION outbox.probe_s() RETURNS double precision
    LANGUAGE sql IMMUTABLE
    RETURN 60.0;

CREATE FUNCTION outbox.promote_job(wanted bigint, actor text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION outbox.prune_aged(rows_max integer DEFAULT 1000, now timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    SET enable_seqscan TO 'off'
    AS $$
declare
    moment timestamptz := coalesce(now, clock_timestamp());
    kept_from timestamptz;
    audited_from timestamptz;
    gone int;
    total int := 0;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('outbox.prune_aged', 0)) then
        return 0;
    end if;
    select moment - make_interval(secs => s.retention_s), moment - make_interval(secs => s.dead_letter_retention_s)
    into kept_from, audited_from from outbox.setting as s;

    delete from outbox.dead_letter as d
    where d.dead_letter_id = any(array(select x.dead_letter_id from outbox.dead_letter as x
                                       order by x.dead_letter_id limit rows_max))
      and d.failed_at < audited_from;
    get diagnostics gone = row_count;
    total := total + gone;
    -- Who did what is kept for as long as what they did it to, in whatever form.
    delete from outbox.operator_action as a
    where a.action_id = any(array(select x.action_id from outbox.operator_action as x
                                  order by x.action_id limit rows_max))
      and a.at < least(kept_from, audited_from);
    get diagnostics gone = row_count;
    total := total + gone;
    delete from outbox.replay_run as r
    where r.run_id = any(array(select x.run_id from outbox.replay_run as x order by x.begun_at limit rows_max))
      and r.begun_at < least(kept_from, audited_from) and r.state <> 'running';
    get diagnostics gone = row_count;
    total := total + gone;
    delete from outbox.sink_message as m
    where m.message_id = any(array(select x.message_id from outbox.sink_message as x
                                   order by x.message_id limit rows_max))
      and m.created_at < kept_from;
    get diagnostics gone = row_count;
    total := total + gone;
    delete from outbox.event as e
    where e.ctid = any(array(select x.ctid from outbox.event as x
                             where x.accepted_at < kept_from order by x.accepted_at limit rows_max));
    get diagnostics gone = row_count;
    total := total + gone;
    -- Who follows the stream may come back after a week.
    delete from outbox.outcome_log as l
    where l.ctid = any(array(select x.ctid from outbox.outcome_log as x
                             where x.at < moment - interval '7 days' order by x.at limit rows_max));
    get diagnostics gone = row_count;
    total := total + gone;
    -- Plots of a day go by quarters of an hour, older ones by hours, which stay as long as history does; totals stay.
    delete from outbox.stat_quarter as s
    where s.ctid = any(array(select x.ctid from outbox.stat_quarter as x
                             where x.at < moment - interval '2 days' order by x.at limit rows_max));
    get diagnostics gone = row_count;
    total := total + gone;
    delete from outbox.stat_hour as s
    where s.ctid = any(array(select x.ctid from outbox.stat_hour as x
                             where x.at < kept_from order by x.at limit rows_max));
    get diagnostics gone = row_count;
    total := total + gone;
    delete from outbox.dispatcher as d
    where d.epoch = any(array(select x.epoch from outbox.dispatcher as x
                              where x.rescued_at < moment - interval '1 day' limit rows_max));
    get diagnostics gone = row_count;
    total := total + gone;
    delete from outbox.api_process as p
    where p.process_id = any(array(select x.process_id from outbox.api_process as x
                                   where x.heartbeat_at < moment - interval '1 day' limit rows_max));
    -- Sockets of those that could not say goodbye.
    delete from outbox.socket as s
    where s.ctid = any(array(select x.ctid from outbox.socket as x
                             where not exists (select from outbox.api_process as p where p.process_id = x.process_id)
                             limit rows_max));
    get diagnostics gone = row_count;
    return total + gone;
end
$$;

CREATE FUNCTION outbox.prune_dedup(keys_max integer) RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
    pruned int;
begin
    delete from outbox.dedup as d
    where d.key_sha256 = any(array(select o.key_sha256 from outbox.dedup as o
                                   where o.until < clock_timestamp() order by o.until limit keys_max
                                   for update skip locked));
    get diagnostics pruned = row_count;
    return pruned;
end
$$;

CREATE FUNCTION outbox.prune_destinations() RETURNS void
    LANGUAGE sql
    AS $$
    with over as (
        delete from outbox.destination as d
        where d.name in (select o.name from outbox.destination as o
                         where o.rate_per_s is null and o.open_until is null
                           and coalesce(o.paused_until < clock_timestamp(), true)
                         limit 100 for update skip locked)
        returning d.name)
    delete from outbox.bucket as b using over as o where b.name = o.name $$;

CREATE FUNCTION outbox.prune_lanes(lanes_max integer DEFAULT 500) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $_$
declare
    counts text;
    doomed int[];
begin
    if not pg_try_advisory_xact_lock(hashtextextended('outbox.prune_lanes', 0)) then
        return 0;
    end if;
    doomed := array(
        select l.lane_id from outbox.lane as l
        where l.scope not in ('', 'test')
          and (l.held_at is null
               or l.scope ~ '^(test:)?job:' and l.held_at < clock_timestamp() - interval '1 hour')
          and not exists (select from outbox.entry as e where e.lane_id = any(array[l.lane_id, -l.lane_id]))
        order by l.lane_id limit lanes_max);
    if cardinality(doomed) = 0 then
        return 0;
    end if;
    -- Versions come before lanes, as wherever both are locked.
    perform outbox.next_version();
    doomed := array(select l.lane_id from outbox.lane as l
                    where l.lane_id = any(doomed)
                      and (l.held_at is null or l.scope ~ '^(test:)?job:') for update skip locked);
    -- A statement of its own: it sees what was moved there before the rows were ours.
    doomed := array(select d from unnest(doomed) as d
                    where not exists (select from outbox.entry as e where e.lane_id = any(array[d, -d])));
    -- As seconds of long ago, which the next roll-up folds into the other lane's totals.
    insert into outbox.stat_second (at, lane_id, duration_ms_sum, sent, failed, retrying, expired, cancelled, rescued,
        late, pickup_ms_sum, durations, pickups, attempts)
    select timestamptz '2020-01-01 00:00Z', m.lane_id, t.duration_ms_sum, t.sent, t.failed, t.retrying, t.expired,
        t.cancelled, t.rescued, t.late, t.pickup_ms_sum, t.durations::int[], t.pickups::int[], t.attempts
    from outbox.stat_total as t
    join outbox.lane as l on l.lane_id = t.lane_id
    join outbox.lane as m on m.tenant_id = l.tenant_id and m.queue = l.queue
        and m.scope = case when outbox.is_test_lane(l.scope) then 'test' else '' end
    where t.lane_id = any(doomed);
    delete from outbox.stat_total as t where t.lane_id = any(doomed);
    update outbox.stat_second as s set lane_id = m.lane_id
    from outbox.lane as l join outbox.lane as m on m.tenant_id = l.tenant_id and m.queue = l.queue
        and m.scope = case when outbox.is_test_lane(l.scope) then 'test' else '' end
    where l.lane_id = any(doomed) and s.lane_id = l.lane_id;
    foreach counts in array array['stat_quarter', 'stat_hour'] loop
        execute format($sql$
            with gone as (delete from outbox.%1$I as s where s.lane_id = any($1) returning s.*)
            insert into outbox.%1$I as h (at, lane_id, sent, failed, retrying, expired, cancelled, rescued, late,
                durations, pickups, arrivals)
            select g.at, m.lane_id, sum(g.sent), sum(g.failed), sum(g.retrying), sum(g.expired), sum(g.cancelled),
                sum(g.rescued), sum(g.late), outbox.sum_counts(g.durations::bigint[])::int[],
                outbox.sum_counts(g.pickups::bigint[])::int[], outbox.sum_counts(g.arrivals::bigint[])::int[]
            from gone as g
            join outbox.lane as l on l.lane_id = g.lane_id
            join outbox.lane as m on m.tenant_id = l.tenant_id and m.queue = l.queue
        and m.scope = case when outbox.is_test_lane(l.scope) then 'test' else '' end
            group by g.at, m.lane_id
            on conflict (at, lane_id) do update
            set sent = h.sent + excluded.sent,
                failed = h.failed + excluded.failed,
                retrying = h.retrying + excluded.retrying,
                expired = h.expired + excluded.expired,
                cancelled = h.cancelled + excluded.cancelled,
                rescued = h.rescued + excluded.rescued,
                late = h.late + excluded.late,
                durations = outbox.add_counts(h.durations, excluded.durations)::int[],
                pickups = outbox.add_counts(h.pickups, excluded.pickups)::int[],
                arrivals = outbox.add_counts(h.arrivals, excluded.arrivals)::int[] $sql$, counts) using doomed;
    end loop;
    delete from outbox.lane as l where l.lane_id = any(doomed);
    perform pg_notify('outbox_bell', 'control');
    return cardinality(doomed);
end
$_$;

CREATE FUNCTION outbox.prune_retired(jobs_max integer DEFAULT 1000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    AS $_$
declare
    r outbox.retiring;
    history record;
    job_table text;
    last_id bigint;
    jobs int;
begin
    select * into r from outbox.retiring order by day limit 1 for update skip locked;
    if r.day is null then
        return null;
    end if;
    job_table := 'job_' || to_char(r.day, 'YYYYMMDD');
    execute format($sql$
        with batch as materialized (
            select j.id, j.tenant_id, j.job_id, j.list_job_id
            from outbox.%I as j where j.id > $1 order by j.id limit $2
        ), keys as (
            delete from outbox.job_key as k using batch as b
            where k.tenant_id = b.tenant_id and k.job_id = b.job_id and k.id = b.id
        ), aliases as (
            delete from outbox.dedup_alias as a using batch as b where a.id = b.id returning a.tenant_id, a.job_id
        ), alias_keys as (
            delete from outbox.job_key as k using aliases as a where k.tenant_id = a.tenant_id and k.job_id = a.job_id
        ), list_keys as (
            -- A list's key is older than each of its jobs.
            delete from outbox.job_key as k using batch as b
            where k.tenant_id = b.tenant_id and k.job_id = b.list_job_id and k.id <= b.id
        ), receipts as (
            delete from outbox.receipt as r using batch as b where r.id = b.id
        ), expected as (
            delete from outbox.receipt_expected as r using batch as b where r.id = b.id
        ), messages as (
            delete from outbox.inbox_message as m using batch as b where m.id = b.id
        )
        select max(b.id), count(*) from batch as b $sql$, job_table)
    into last_id, jobs using r.pruned_to, jobs_max;
    if jobs > 0 then
        update outbox.retiring as x set pruned_to = last_id where x.day = r.day;
        return jobs;
    end if;
    select d.* into history from outbox.days_of('outbox.delivery') as d where d.day = r.day;
    if history.day is not null then
        lock table outbox.delivery in access exclusive mode;
        execute format('alter table outbox.delivery detach partition outbox.%I%s', history.child,
                       case when history.pending then ' finalize' else '' end);
        execute format('drop table outbox.%I', history.child);
    end if;
    execute format('drop table outbox.%I', job_table);
    delete from outbox.retiring as x where x.day = r.day;
    return 0;
end
$_$;

CREATE FUNCTION outbox.quantile_s(counts bigint[], bounds_s double precision[], q double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT CASE WHEN (b.n > cardinality(quantile_s.bounds_s)) THEN (quantile_s.bounds_s)[cardinality(quantile_s.bounds_s)] ELSE (COALESCE((quantile_s.bounds_s)[(b.n - 1)], (0)::double precision) + (((quantile_s.bounds_s)[b.n] - COALESCE((quantile_s.bounds_s)[(b.n - 1)], (0)::double precision)) * ((((quantile_s.q * (b.total)::double precision) - (b.upto)::double precision) + (b.count)::double precision) / (b.count)::double precision))) END AS "case" FROM (SELECT c.n, c.count, sum(c.count) OVER (ORDER BY c.n) AS upto, sum(c.count) OVER () AS total FROM unnest(quantile_s.counts) WITH ORDINALITY c(count, n)) b WHERE ((b.count > 0) AND ((b.upto)::double precision >= (quantile_s.q * (b.total)::double precision))) ORDER BY b.n LIMIT 1);

COMMENT ON FUNCTION outbox.quantile_s(counts bigint[], bounds_s double precision[], q double precision) IS 'A quantile of a histogram, taken to lie evenly within its bucket; null when it is empty.';

CREATE FUNCTION outbox.queue_counts(of_queue text, of_tenant text, walk boolean DEFAULT true, exact_max integer DEFAULT 10000, pages_max integer DEFAULT 2000) RETURNS TABLE(queue text, waiting bigint, active bigint, delayed bigint, oldest_at timestamp with time zone, estimated text[])
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
with recursive lanes as materialized (
    select l.lane_id, l.queue
    from outbox.lane as l
    where (of_queue is null or l.queue = of_queue) and (of_tenant is null or l.tenant_id = of_tenant)
      and outbox.is_test_lane(l.scope) = outbox.in_test_mode()  -- test jobs count for test keys alone
), pages as materialized (
    -- All of the last ones from `body` on, and `parts` of those before.
    select b.n, b.body, least(b.body, case when walk then pages_max else pages_max / 2 end) as parts,
           not walk or b.n <= pages_max and of_queue is null and of_tenant is null as alone
    from (select s.n, case when walk then s.n else greatest(s.n - pages_max / 2, 0) end as body
          from (select pg_relation_size('outbox.entry') / current_setting('block_size')::int as n) as s) as b
), loose as (
    (select e.lane_id, e.priority, e.available_at, e.id, e.claimed_by
     from outbox.entry as e
     where of_queue is null and of_tenant is null and not (select p.alone from pages as p)
     order by e.lane_id, e.priority, e.available_at, e.id
     limit 1)
    union all
    select n.lane_id, n.priority, n.available_at, n.id, n.claimed_by
    from loose as p
    cross join lateral (
        select e.lane_id, e.priority, e.available_at, e.id, e.claimed_by
        from outbox.entry as e
        where (e.lane_id, e.priority) > (p.lane_id, p.priority)
        order by e.lane_id, e.priority, e.available_at, e.id
        limit 1) as n
), probes as materialized (
    -- Its sign beforehand: a product may overflow, so row-level security would keep it out of the index.
    select s.sign * l.lane_id as lane_id, p.priority
    from lanes as l
    cross join (values (1), (-1)) as s(sign)
    cross join unnest(array[0, 1, 5, 10]::smallint[]) as p(priority)
    where (of_queue is not null or of_tenant is not null) and not (select p.alone from pages as p)
), probed as (
    select e.*
    from probes as p
    cross join lateral (
        select e.lane_id, e.priority, e.available_at, e.id, e.claimed_by
        from outbox.entry as e
        where e.lane_id = p.lane_id and e.priority = p.priority
        order by e.available_at, e.id
        limit 1) as e
), place as materialized (
    -- `at`, `id`: its first entry; `open_at`, `open_id`: its first unclaimed one.
    select l.queue, f.lane_id, f.priority, f.available_at as at, f.id,
           case when f.claimed_by is null then f.available_at else u.available_at end as open_at,
           case when f.claimed_by is null then f.id else u.id end as open_id
    from (select * from loose union all select * from probed) as f
    join lanes as l on l.lane_id = abs(f.lane_id)
    left join lateral (
        select e.available_at, e.id
        from outbox.entry as e
        where f.claimed_by is not null and e.lane_id = f.lane_id and e.priority = f.priority and e.claimed_by is null
          and (e.available_at, e.id) > (f.available_at, f.id)
        order by e.available_at, e.id
        limit 1) as u on true
), counted as materialized (
    select q.*, d.waiting, d.active, a.delayed, d.waiting + d.active > exact_max as more_due, a.delayed > exact_max as more_ahead
    from (select p.queue, min(p.open_at) filter (where p.lane_id > 0 and p.open_at <= statement_timestamp()) as oldest_at,
                 array_agg(p.lane_id) as lane_ids, array_agg(p.priority) as priorities, array_agg(p.at) as ats,
                 array_agg(p.id) as ids, array_agg(p.open_at) as open_ats, array_agg(p.open_id) as open_ids
          from place as p group by p.queue) as q
    cross join lateral (
        select count(*) filter (where n.claimed_by is null) as waiting, count(n.claimed_by) as active
        from (select e.claimed_by
              from unnest(q.lane_ids, q.priorities, q.ats, q.ids) as p(lane_id, priority, at, id)
              cross join lateral (
                  select e.claimed_by
                  from outbox.entry as e
                  where e.lane_id = p.lane_id and e.priority = p.priority
                    and (e.available_at, e.id) >= (p.at, p.id) and e.available_at <= statement_timestamp()
                  order by e.available_at, e.id
                  limit exact_max + 1) as e
              limit exact_max + 1) as n) as d
    cross join lateral (
        select count(*) as delayed
        from (select
              from unnest(q.lane_ids, q.priorities) as p(lane_id, priority)
              cross join lateral (
                  select
                  from outbox.entry as e
                  where e.lane_id = p.lane_id and e.priority = p.priority and e.available_at > statement_timestamp()
                  order by e.available_at, e.id
                  limit exact_max + 1) as e
              limit exact_max + 1) as n) as a
), seen as materialized (
    select abs(e.lane_id) as lane_id, b.times,
           count(*) filter (where e.claimed_by is null and e.available_at <= statement_timestamp()) as waiting,
           count(e.claimed_by) as active,
           count(*) filter (where e.claimed_by is null and e.available_at > statement_timestamp()) as delayed,
           min(e.available_at) filter (where e.claimed_by is null and e.lane_id > 0
                                         and e.available_at <= statement_timestamp()) as oldest_at
    from (select p.* from pages as p
          where p.alone or exists (select from counted as c where c.more_due or c.more_ahead)) as p
    cross join lateral (
        select trunc((part + (hashint8(part) + 2147483648) / 4294967296.0) * p.body / p.parts) as page,
               p.body::numeric / p.parts as times
        from generate_series(0, p.parts - 1) as part
        union all
        select page, 1 from generate_series(p.body, p.n - 1) as page) as b
    cross join lateral (
        select e.lane_id, e.claimed_by, e.available_at
        from outbox.entry as e
        where e.ctid >= format('(%s,0)', b.page)::tid and e.ctid < format('(%s,0)', b.page + 1)::tid
        offset 0) as e
    group by 1, 2
), sampled as materialized (
    select l.queue, p.body > p.parts as in_part, sum(s.waiting * s.times)::bigint as waiting,
           sum(s.active * s.times)::bigint as active, sum(s.delayed * s.times)::bigint as delayed,
           min(s.oldest_at) as oldest_at
    from pages as p
    cross join lanes as l
    left join seen as s on s.lane_id = l.lane_id
    group by 1, 2
)
select s.queue,
       coalesce(case when s.in_part then outbox.in_three_digits(s.waiting) else s.waiting end, 0),
       coalesce(case when s.in_part then outbox.in_three_digits(s.active) else s.active end, 0),
       coalesce(case when s.in_part then outbox.in_three_digits(s.delayed) else s.delayed end, 0),
       s.oldest_at,
       case when s.in_part then array['waiting', 'active', 'delayed', 'oldest_waiting_s'] else '{}' end
from pages as p cross join sampled as s
where p.alone
union all
select c.queue,
       case when not c.more_due then c.waiting
            when not s.in_part then s.waiting
            else greatest(c.waiting, outbox.in_three_digits(s.waiting)) end,
       case when not c.more_due then c.active
            when not s.in_part then s.active
            else greatest(c.active, (
                select sum(n.claimed)::bigint
                from unnest(c.lane_ids, c.priorities, c.ats, c.ids, c.open_ats, c.open_ids)
                     as p(lane_id, priority, at, id, open_at, open_id)
                cross join lateral (
                    select count(*) as claimed
                    from outbox.entry as e
                    where e.lane_id = p.lane_id and e.priority = p.priority
                      and (e.available_at, e.id) >= (p.at, p.id) and (e.available_at, e.id) < (p.open_at, p.open_id)) as n
                where p.id <> p.open_id)) end,
       case when not c.more_ahead then c.delayed
            when not s.in_part then s.delayed
            else greatest(c.delayed, outbox.in_three_digits(s.delayed)) end,
       c.oldest_at,
       case when s.in_part
            then case when c.more_due then array['waiting', 'active'] else '{}' end
                 || case when c.more_ahead then array['delayed'] else '{}' end
            else '{}' end
from counted as c
join sampled as s on s.queue = c.queue
$$;

COMMENT ON FUNCTION outbox.queue_counts(of_queue text, of_tenant text, walk boolean, exact_max integer, pages_max integer) IS 'What waits, runs and lies ahead, by queue, at a bounded cost; `estimated` names the figures that were not counted.';

CREATE FUNCTION outbox.raise_conflicts(parsed outbox.parsed[], results outbox.enqueued[]) RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$
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

CREATE FUNCTION outbox.raise_faults(parsed outbox.parsed[]) RETURNS void
    LANGUAGE plpgsql STABLE
    AS $$
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

CREATE FUNCTION outbox.rare_faults(sent jsonb, job jsonb, channel text, tenant text, limits outbox.setting) RETURNS outbox.fault[]
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $_$
declare
    rest jsonb := sent - array['job_id', 'user_id', 'channel', 'template_code', 'locale', 'data', 'meta', 'created_at',
                               'send_after', 'expires_at'];
    faults outbox.fault[] := '{}';
begin
    if jsonb_path_exists(job, 'strict $.*.**{32} ? (@.type() == "object" || @.type() == "array")') then
        faults := outbox.depth_faults(job);
    end if;
    if rest = '{}' then
        return faults;
    end if;
    faults := faults || outbox.unknown_faults(rest);
    if job ?| array['ordering_key', 'dedup_key', 'dedup_window_s', 'dedup_policy'] then
        faults := faults || outbox.key_faults(job, limits.retention_s);
    end if;
    if job ? 'endpoint' then
        faults := faults || outbox.endpoint_fault(job, channel, tenant);
    end if;
    if job ?| array['subject', 'idempotency_key'] then
        faults := faults || outbox.text_fault(job, 'subject', 998);
        faults := faults || outbox.text_fault(job, 'idempotency_key', 255);
    end if;
    if job ? 'content' then
        if jsonb_typeof(job -> 'content') <> 'string' then
            faults := faults || ('/content', 'must be a string')::outbox.fault;
        elsif job ? 'template_code' then
            faults := faults || ('/content', 'cannot be combined with template_code')::outbox.fault;
        elsif job ->> 'content' = '' then
            faults := faults || ('/content', 'must not be empty')::outbox.fault;
        end if;
    end if;
    if job ? 'category' and (jsonb_typeof(job -> 'category') <> 'string'
                              or job ->> 'category' !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$') then
        faults := faults || ('/category', 'must be one word of at most 64 letters, digits, "_", "." or "-"')::outbox.fault;
    end if;
    -- Read as text: 1.0 is a whole number too, but would be none when its text is cast.
    if job ? 'max_attempts' and (jsonb_typeof(job -> 'max_attempts') <> 'number'
                                  or job ->> 'max_attempts' !~ '^([1-9][0-9]?|100)$') then
        faults := faults || ('/max_attempts', 'must be a whole number from 1 to 100')::outbox.fault;
    end if;
    if job ? 'timeout_s' and (jsonb_typeof(job -> 'timeout_s') <> 'number'
                               or (job ->> 'timeout_s')::numeric <= 0
                               or (job ->> 'timeout_s')::numeric > limits.timeout_s_max) then
        faults := faults || ('/timeout_s', format('must be a number above 0, at most %s', limits.timeout_s_max))::outbox.fault;
    end if;
    if job ? 'headers' then
        faults := faults || outbox.headers_faults(job -> 'headers');
    end if;
    if job ? 'attachments' then
        faults := faults || outbox.attachments_faults(job -> 'attachments', channel);
    end if;
    if job ? 'to' then
        faults := faults || outbox.to_faults(job -> 'to', channel);
    end if;
    return array(select f from unnest(faults) as f where f.pointer is not null);
end
$_$;

CREATE FUNCTION outbox.read_job(ord integer, id bigint, sent jsonb, tenant text, fill_created boolean, at timestamp with time zone, limits outbox.setting) RETURNS outbox.parsed
    LANGUAGE plpgsql
    AS $_$
declare
    p outbox.parsed;
    job jsonb;
    meta jsonb;
    content text;
    has_payload boolean;
    sent_priority text;
begin
    p.ord := ord;
    p.id := id;
    p.tenant_id := coalesce(tenant, 'default');
    if jsonb_typeof(sent) is distinct from 'object' then
        p.faults := array[('', 'must be an object')::outbox.fault];
        return p;
    end if;
    job := outbox.without_nulls(sent) - 'job_id';
    if job ->> 'channel' = 'database' then
        job := jsonb_set(job, '{channel}', '"inbox"');
    end if;
    content := job::text;
    -- The content has no job_id: `"job_id": "…", ` takes 50 bytes.
    if octet_length(content) + (case when sent ->> 'job_id' is null then 0 else 50 end) > limits.job_bytes_max then
        p.faults := array[('', format('is more than %s bytes long', limits.job_bytes_max))::outbox.fault];
        return p;
    end if;
    meta := job -> 'meta';
    has_payload := job ? 'payload';
    if jsonb_typeof(job -> 'tenant_id') = 'string' then
        p.tenant_id := job ->> 'tenant_id';
    end if;
    if job ->> 'channel' in ('email', 'push', 'ws', 'sms', 'telegram', 'inbox', 'browser', 'webhook')
        -- Or somebody's own, where a package that has it was ever started.
        or exists (select from outbox.handler as h where h.kind = 'channel' and h.name = job ->> 'channel')
    then
        p.channel := job ->> 'channel';
    end if;
    p.queue := coalesce(job ->> 'queue', p.channel);
    if outbox.is_uuid(sent ->> 'job_id') then
        p.job_id := (sent ->> 'job_id')::uuid;
    end if;
    p.created_at := case when job ->> 'created_at' is not null then outbox.to_time(job ->> 'created_at')
                         when fill_created or p.channel is null or p.channel = 'webhook' then at end;
    p.send_after := outbox.to_time(job ->> 'send_after');
    p.expires_at := outbox.to_time(job ->> 'expires_at');
    sent_priority := meta ->> 'priority';
    p.priority := coalesce(outbox.to_priority(sent_priority), 1::smallint);
    if p.queue = 'media-sync' then
        p.priority := coalesce(outbox.payload_priority(job -> 'payload' -> 'priority'), p.priority);
    end if;

    -- One expression, because plpgsql's cost by statement would be most of it.
    p.faults := array_remove(array[
        case when sent ->> 'job_id' is not null and p.job_id is null
            then ('/job_id', 'must be a UUID')::outbox.fault end,
        case when job ? 'tenant_id' then
            case when jsonb_typeof(job -> 'tenant_id') <> 'string' or char_length(p.tenant_id) not between 1 and 128
                      or p.tenant_id = '*'
                then ('/tenant_id', 'must be a string of 1 to 128 characters, and not "*"')::outbox.fault
            when p.tenant_id <> tenant
                then ('/tenant_id', 'is not the tenant that this job was handed in for')::outbox.fault end end,
        case when job ? 'channel' and p.channel is null
            then ('/channel', 'must be one of email, push, ws, sms, telegram, inbox, database, browser, webhook')::outbox.fault
        when not job ? 'channel' and not has_payload and (not job ? 'queue' or job ? 'template_code')
            then ('/channel', 'is required')::outbox.fault end,
        case when job ? 'queue' then
            case when jsonb_typeof(job -> 'queue') <> 'string' or p.queue !~ '^[a-z0-9][a-z0-9._-]{0,62}$'
                then ('/queue', 'must be 1 to 63 of a-z, 0-9, ".", "_", "-"')::outbox.fault end
        when has_payload and not job ? 'channel'
            then ('/queue', 'is required beside payload')::outbox.fault end,
        case when has_payload and job ? 'channel'
            then ('/payload', 'cannot be combined with channel')::outbox.fault
        when has_payload and jsonb_typeof(job -> 'payload') <> 'object'
            then ('/payload', 'must be an object')::outbox.fault
        when not has_payload and job ? 'queue' and not job ?| array['channel', 'template_code']
            then ('/payload', 'is required where there is no channel')::outbox.fault end,
        case when p.queue = 'media-sync' and job -> 'payload' ? 'priority'
                  and outbox.payload_priority(job -> 'payload' -> 'priority') is null
            then ('/payload/priority', 'must be a whole number from 1 to 10')::outbox.fault end,
        case when job ? 'user_id' then
            case when jsonb_typeof(job -> 'user_id') <> 'string' or char_length(job ->> 'user_id') not between 1 and 128
                then ('/user_id', 'must be a string of 1 to 128 characters')::outbox.fault end
        when p.channel = 'inbox' or p.channel <> 'webhook' and not has_payload and not job ? 'to'
            then ('/user_id', 'is required unless to is given')::outbox.fault end,
        case when p.channel = 'webhook' and not job ?| array['to', 'endpoint']
            then ('/to', 'is required for a webhook')::outbox.fault end,
        case when job ? 'template_code' then
            case when jsonb_typeof(job -> 'template_code') <> 'string'
                      or char_length(job ->> 'template_code') not between 1 and 128
                then ('/template_code', 'must be a string of 1 to 128 characters')::outbox.fault end
        when p.channel <> 'webhook' and not job ? 'content'
            then ('/template_code', 'is required unless content is given')::outbox.fault end,
        case when job ? 'locale' and (jsonb_typeof(job -> 'locale') <> 'string'
                                      or char_length(job ->> 'locale') not between 1 and 35
                                      or job ->> 'locale' ~ '[^A-Za-z0-9_-]')
            then ('/locale', 'must be a language tag')::outbox.fault end,
        case when jsonb_typeof(job -> 'data') <> 'object' then ('/data', 'must be an object')::outbox.fault
        when not job ? 'data' and (p.channel is not null or not has_payload and (job ? 'channel' or not job ? 'queue'))
            then ('/data', 'is required')::outbox.fault end,
        case when jsonb_typeof(meta) <> 'object' then ('/meta', 'must be an object')::outbox.fault
        when meta is null and p.channel <> 'webhook'
            then ('/meta', 'is required')::outbox.fault end,
        case when meta ->> 'event_type' is not null and (jsonb_typeof(meta -> 'event_type') <> 'string'
                                                         or char_length(meta ->> 'event_type') > 128)
            then ('/meta/event_type', 'must be a string of at most 128 characters')::outbox.fault end,
        case when meta ->> 'event_id' is not null and (jsonb_typeof(meta -> 'event_id') <> 'string'
                                                       or char_length(meta ->> 'event_id') > 128)
            then ('/meta/event_id', 'must be a string of at most 128 characters')::outbox.fault end,
        case when meta ->> 'campaign_id' is not null and (jsonb_typeof(meta -> 'campaign_id') <> 'string'
                                                          or char_length(meta ->> 'campaign_id') > 128)
            then ('/meta/campaign_id', 'must be a string of at most 128 characters, or null')::outbox.fault end,
        case when sent_priority is not null and outbox.to_priority(sent_priority) is null
            then ('/meta/priority', 'must be low, normal, medium, high or urgent')::outbox.fault end,
        case when p.created_at is null then
            case when not job ? 'created_at' then ('/created_at', 'is required')::outbox.fault
            else ('/created_at', 'must be an RFC 3339 time with an offset')::outbox.fault end end,
        case when job ? 'send_after' then
            case when p.send_after is null
                then ('/send_after', 'must be an RFC 3339 time with an offset')::outbox.fault
            when p.send_after > at + make_interval(secs => limits.retention_s)
                then ('/send_after', format('lies more than %s days ahead', limits.retention_s / 86400))::outbox.fault
            when p.send_after >= p.expires_at
                then ('/send_after', 'must lie before expires_at')::outbox.fault end end,
        case when job ? 'expires_at' and p.expires_at is null
            then ('/expires_at', 'must be an RFC 3339 time with an offset')::outbox.fault end
    ], null) || outbox.rare_faults(sent, job, p.channel, p.tenant_id, limits);
    if cardinality(p.faults) > 0 then
        return p;
    end if;
    p.faults := null;
    if p.job_id is null then
        p.job_id := case when job ? 'idempotency_key'
                         then outbox.idempotent_job_id(p.tenant_id, job ->> 'idempotency_key')
                         else outbox.uuid7() end;
    end if;
    p.template_code := job ->> 'template_code';
    p.locale := job ->> 'locale';
    p.user_id := job ->> 'user_id';
    p.event_id := meta ->> 'event_id';
    p.campaign_id := meta ->> 'campaign_id';
    p.category := job ->> 'category';
    p.ordering_key := job ->> 'ordering_key';
    p.dedup_key := job ->> 'dedup_key';
    p.max_attempts := (job ->> 'max_attempts')::smallint;
    p.list_job_ids := case when jsonb_typeof(job -> 'to') = 'array' then '{}'::uuid[] end;
    p.content_sha256 := sha256(convert_to(content, 'UTF8'));
    p.job := job;
    return p;
end
$_$;

CREATE FUNCTION outbox.read_jobs(jobs jsonb[], tenant text, fill_created boolean, at timestamp with time zone, limits outbox.setting) RETURNS outbox.parsed[]
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
    first_id bigint := ((extract(epoch from clock_timestamp()) * 1000)::bigint - 1577836800000) << 22;
    latest timestamptz := at + make_interval(secs => limits.retention_s);
    content_bytes_max int := limits.job_bytes_max - 50;
    now_at alias for at;
    of_tenant alias for tenant;
    fill alias for fill_created;
begin
    return array(
    with listed as (
        -- (In the select list, because a function in FROM is written to a tuplestore first.)
        select unnest(jobs) as sent, generate_series(1, cardinality(jobs)) as n
        offset 0
    ), texts as (
        select u.n, u.sent,
               u.sent ->> 'job_id' as said_id, u.sent ->> 'user_id' as user_id, u.sent ->> 'channel' as channel,
               u.sent ->> 'template_code' as template_code, u.sent ->> 'locale' as locale,
               u.sent ->> 'created_at' as said_created, u.sent ->> 'send_after' as said_send,
               u.sent ->> 'expires_at' as said_expires, u.sent -> 'meta' as meta
        from listed as u
        offset 0
    ), fields as (
        select t.*,
               t.meta ->> 'event_id' as event_id, t.meta ->> 'campaign_id' as campaign_id,
               t.meta ->> 'priority' as said_priority,
               case when outbox.is_uuid(t.said_id) then t.said_id::uuid end as job_id,
               case when t.said_created is not null then outbox.to_time(t.said_created)
                    when fill then now_at end as created_at,
               outbox.to_time(t.said_send) as send_after,
               outbox.to_time(t.said_expires) as expires_at,
               case when jsonb_typeof(t.sent) = 'object'
                    then t.sent - array['job_id', case when t.locale is null then 'locale' end,
                                        case when t.said_created is null then 'created_at' end,
                                        case when t.said_send is null then 'send_after' end,
                                        case when t.said_expires is null then 'expires_at' end] end as job
        from texts as t
        offset 0
    ), looked_at as (
        select f.*, f.job::text as content,
               outbox.is_typical(f.job, f.user_id, f.channel, f.template_code, f.locale, f.meta, f.event_id, f.campaign_id,
                                 f.said_priority, f.said_id, f.job_id)
               and f.created_at is not null
               and (f.said_send is null or f.send_after <= latest and (f.said_expires is null or f.send_after < f.expires_at))
               and (f.said_expires is null or f.expires_at is not null)
               as typical
        from fields as f
        offset 0
    )
    select case
        when l.typical and octet_length(l.content) <= content_bytes_max then
            (l.n, first_id | (nextval('outbox.id_seq') & 4194303), coalesce(l.job_id, outbox.uuid7()),
             coalesce(of_tenant, 'default'), l.channel, l.channel, l.template_code, l.locale, l.user_id, l.event_id,
             l.campaign_id, null, coalesce(outbox.to_priority(l.said_priority), 1::smallint), null, l.created_at,
             l.send_after, l.expires_at, null, null, sha256(convert_to(l.content, 'UTF8')), l.job, null, null,
             null)::outbox.parsed
        else outbox.read_job(l.n, first_id | (nextval('outbox.id_seq') & 4194303), l.sent, of_tenant, fill, now_at, limits)
    end
    from looked_at as l);
end
$$;

CREATE FUNCTION outbox.recent_payloads(for_tenant text, for_code text, for_channel text, for_locale text, payloads_max integer, jobs_max integer DEFAULT 50000) RETURNS TABLE(job_id uuid, job text, user_json text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    if not outbox.acts_for(for_tenant) then
        raise exception using errcode = 'OBX03', detail = '[]', message = 'another tenant''s templates';
    end if;
    return query
    with known as not materialized (
        select j.id, j.job_id, j.job::text as job,
            jsonb_build_object('user_id', j.user_id, 'email', r.email, 'phone', r.phone, 'locale', r.locale,
                               'timezone', r.timezone, 'attributes', coalesce(r.attributes, '{}'))::text as user_json,
            lower(replace(coalesce(j.locale, r.locale), '_', '-')) || '-' as locale
        from (select n.* from outbox.job as n order by n.id desc limit jobs_max) as j
        left join outbox.recipient as r on r.tenant_id = j.tenant_id and r.user_id = j.user_id
        where j.tenant_id = for_tenant and j.template_code = for_code and j.channel = for_channel
          and not j.job ? 'erased'
          and not exists (select from outbox.delivery as d
                          where d.id = j.id and d.terminal and not d.late and starts_with(d.error_code, 'template.'))
    ), wanted as (
        (select k.* from known as k order by k.id desc limit payloads_max)
        union
        (select k.* from known as k where starts_with(k.locale, lower(for_locale) || '-') order by k.id desc limit payloads_max)
    )
    select w.job_id, w.job, w.user_json from wanted as w order by w.id desc;
end
$$;

CREATE FUNCTION outbox.release_job(wanted bigint, actor text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION outbox.reorder(wanted bigint, tenant text, of_queue text, key text, lane integer, OUT lane_id integer, OUT ordering_id bigint, OUT place bigint) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
    taken record;
begin
    lane_id := lane;
    delete from outbox.ordering_gap as g where g.dead_id = wanted
    returning g.ordering_id, g.place into reorder.ordering_id, reorder.place;
    if not found then
        taken := outbox.take_ordering(tenant, of_queue, outbox.key_hash((select s.address_key from outbox.setting as s),
                                                                        tenant, of_queue, key));
        ordering_id := taken.ordering_id;
        place := nextval('outbox.place_seq');
        if not taken.is_new then
            lane_id := -lane;
        end if;
    end if;
end
$$;

CREATE FUNCTION outbox.replay_outlook(numbers bigint[]) RETURNS TABLE(dead_letter_id bigint, id bigint, verdict text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select d.dead_letter_id, d.id,
           case when d.job is null then 'gone'
                when d.replayed_at is not null then 'duplicate'
                when exists (select from outbox.entry as e where e.id = d.id) then 'duplicate'
                when j.id is null or j.job ? 'erased' then 'gone'
                when last.status is distinct from 'FAILED' or last.series <> d.series then 'duplicate'
                when j.expires_at <= clock_timestamp() then 'expired'
                when j.category = any(r.opt_outs) then 'suppressed'
                when exists (select from outbox.suppression as s
                             where s.tenant_id = j.tenant_id and s.channel = j.channel
                               and s.address = lower(coalesce(j.job ->> 'to', case j.channel
                                       when 'email' then r.email when 'sms' then r.phone
                                       when 'telegram' then r.telegram_chat_id else j.user_id end))
                               and (s.expires_at is null or s.expires_at > clock_timestamp())) then 'suppressed'
                else 'would_send' end
    from outbox.dead_letter as d
    left join lateral (select o.id, o.job, o.expires_at, o.tenant_id, o.channel, o.category, o.user_id
                       from outbox.job as o where o.id = d.id offset 0) as j on true
    left join outbox.recipient as r on r.tenant_id = j.tenant_id
        and r.user_id = coalesce(j.user_id, outbox.address_user(j.channel, j.job ->> 'to'))
    left join lateral (select x.series, x.status from outbox.delivery as x
                       where x.id = d.id and x.terminal and not x.late order by x.series desc limit 1) as last on true
    where d.dead_letter_id = any(numbers)
$$;

CREATE FUNCTION outbox.report_destinations(for_epoch bigint, names text[], goods integer[], bads integer[]) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
    opened boolean;
    watched boolean;
begin
    with told as (
        insert into outbox.destination_health as h (name, epoch, good, bad)
        select t.name, for_epoch, t.good, t.bad from unnest(names, goods, bads) as t(name, good, bad) order by t.name
        on conflict (name, epoch) do update set good = excluded.good, bad = excluded.bad, told_at = clock_timestamp()
        returning h.xmax = 0 as is_new)
    select bool_or(t.is_new) into watched from told as t;
    delete from outbox.destination_health as h
    where h.told_at < clock_timestamp() - interval '60 s' or h.name = any(names) and h.good + h.bad = 0;
    with failing as (
        select h.name from outbox.destination_health as h
        where h.name = any(names)
        group by h.name
        having sum(h.good + h.bad) >= 20 and sum(h.bad) * 2 >= sum(h.good + h.bad)
        order by h.name
    ), open as (
        insert into outbox.destination as d (name, opened_at, open_s, open_until)
        select f.name, clock_timestamp(), 30, clock_timestamp() + interval '30 s' from failing as f
        on conflict (name) do update
        set opened_at = excluded.opened_at, open_s = excluded.open_s, open_until = excluded.open_until, probe_until = null
        where d.open_until is null
        returning d.name)
    select count(*) > 0 into opened from open;
    if opened or watched then
        perform outbox.destinations_changed();
    end if;
end
$$;

CREATE FUNCTION outbox.retention_day(now timestamp with time zone) RETURNS date
    LANGUAGE sql STABLE
    RETURN ((((COALESCE(now, clock_timestamp()) - make_interval(secs => ((SELECT s.retention_s FROM outbox.setting s))::double precision)) AT TIME ZONE 'utc'::text))::date - 1);

COMMENT ON FUNCTION outbox.retention_day(now timestamp with time zone) IS 'The youngest day of which every job is older than its retention.';

CREATE FUNCTION outbox.retention_lag(now timestamp with time zone DEFAULT NULL::timestamp with time zone, OUT days integer, OUT live boolean) RETURNS record
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ select outbox.retention_day(now) - d.day + 1, outbox.has_live(d.low, d.high)
          from (select * from outbox.days_of('outbox.job') as x where x.day <= outbox.retention_day(now)
                order by x.day limit 1) as d $$;

CREATE FUNCTION outbox.retire_day(now timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS date
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $$
declare
    oldest record;
begin
    if not pg_try_advisory_xact_lock(hashtextextended('outbox.retire_day', 0)) then
        return null;
    end if;
    select d.* into oldest from outbox.days_of('outbox.job') as d
    where d.day <= outbox.retention_day(now) and not outbox.has_live(d.low, d.high)
    order by d.day limit 1;
    if oldest.day is null then
        return null;
    end if;
    -- Whoever gives an old job a new series reads it first: from here on nobody can, so the second look holds.
    lock table outbox.job in access exclusive mode;
    if outbox.has_live(oldest.low, oldest.high) then
        return null;
    end if;
    execute format('alter table outbox.job detach partition outbox.%I%s', oldest.child,
                   case when oldest.pending then ' finalize' else '' end);
    insert into outbox.retiring (day) values (oldest.day);
    return oldest.day;
end
$$;

CREATE FUNCTION outbox.retry_job(wanted bigint, actor text, action text DEFAULT 'retry'::text, dead_letter bigint DEFAULT NULL::bigint, note jsonb DEFAULT '{}'::jsonb) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION outbox.ring(lane_ids integer[]) RETURNS void
    LANGUAGE sql
    AS $$ select pg_notify('outbox_bell', left(array_to_string(lane_ids[:200], ','), 7000)) $$;

CREATE FUNCTION outbox.schema_revisions(OUT pre integer, OUT post integer) RETURNS record
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select coalesce(max(left(v.version_num, 4)::int), 0),
           coalesce(max(left(v.version_num, 4)::int) filter (where right(v.version_num, 5) = '_post'), 0)
    from outbox.alembic_version as v
$$;

CREATE FUNCTION outbox.scope_lane(for_tenant text, for_queue text, for_scope text) RETURNS integer
    LANGUAGE plpgsql
    AS $$
declare
    main int := outbox.lane_of(for_tenant, for_queue);
    found_id int;
begin
    insert into outbox.lane (tenant_id, queue, scope, paused_at, paused_by, own_paused_at, own_paused_by, version)
    select m.tenant_id, m.queue, for_scope, m.paused_at, m.paused_by, m.own_paused_at, m.own_paused_by, m.version
    from outbox.lane as m where m.lane_id = main
    on conflict (tenant_id, queue, scope) do nothing;
    select l.lane_id into found_id from outbox.lane as l
    where l.tenant_id = for_tenant and l.queue = for_queue and l.scope = for_scope;
    return found_id;
end
$$;

CREATE FUNCTION outbox.scope_now() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN (current_setting('outbox.mode'::text, true) = 'test'::text) THEN 'test'::text ELSE ''::text END;

CREATE FUNCTION outbox.sees(tenant text) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (current_setting('outbox.tenant'::text, true) = ANY (ARRAY['*'::text, tenant]));

CREATE FUNCTION outbox.sees_job(wanted bigint) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    RETURN (EXISTS (SELECT FROM outbox.job j WHERE (j.id = sees_job.wanted)));

CREATE FUNCTION outbox.set_apart(parsed outbox.parsed[]) RETURNS outbox.parsed[]
    LANGUAGE plpgsql IMMUTABLE
    AS $$
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

CREATE FUNCTION outbox.set_destination(wanted text, to_rate_per_s double precision, to_burst integer, resume boolean, actor text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    was jsonb;
begin
    if not outbox.acts_for('*') then
        raise exception using errcode = 'OBX03', detail = '[]', message = 'a destination needs a service-wide key';
    end if;
    perform outbox.check_limits(1, null, to_rate_per_s, to_burst);
    if wanted !~ '^(host|endpoint|provider):[!-~]{1,255}$' then
        raise exception using errcode = 'OBX01', message = 'name must be host:NAME, endpoint:ID or provider:NAME',
            detail = '[{"pointer": "/path/name", "message": "must be host:NAME, endpoint:ID or provider:NAME"}]';
    end if;
    select jsonb_build_object('rate_per_s', d.rate_per_s, 'burst', d.burst, 'paused_until', d.paused_until,
                              'open_until', d.open_until) into was
    from outbox.destination as d where d.name = wanted;
    insert into outbox.destination as d (name, rate_per_s, burst) values (wanted, to_rate_per_s, to_burst)
    on conflict (name) do update
    set rate_per_s = excluded.rate_per_s, burst = excluded.burst, changed_at = clock_timestamp();
    if resume then
        update outbox.destination as d
        set paused_until = null, opened_at = null, open_until = null, open_s = null, probe_until = null
        where d.name = wanted;
        delete from outbox.destination_health as h where h.name = wanted;
    end if;
    perform outbox.prune_destinations();
    insert into outbox.operator_action (actor, action, tenant_id, detail)
    values (actor, case when resume then 'resume' else 'limit' end, '*',
            jsonb_build_object('destination', wanted, 'before', was, 'after', jsonb_build_object(
                'rate_per_s', to_rate_per_s, 'burst', to_burst,
                'paused_until', case when not resume then was -> 'paused_until' end,
                'open_until', case when not resume then was -> 'open_until' end)));
    perform outbox.destinations_changed();
end
$_$;

CREATE FUNCTION outbox.set_lane_limits(for_tenant text, for_queue text, to_weight integer, to_concurrency_max integer, to_rate_per_s double precision, to_burst integer, actor text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    now_version bigint := outbox.next_version();
    lane int;
    was jsonb;
begin
    if not outbox.acts_for(for_tenant) then
        raise exception using errcode = 'OBX03', detail = '[]', message = 'another tenant''s lane needs a service-wide key';
    end if;
    perform outbox.check_limits(to_weight, to_concurrency_max, to_rate_per_s, to_burst);
    lane := outbox.lane_of(for_tenant, for_queue);
    select jsonb_build_object('weight', l.weight, 'concurrency_max', l.concurrency_max, 'rate_per_s', l.rate_per_s,
                              'burst', l.burst) into was
    from outbox.lane as l where l.lane_id = lane for update;
    update outbox.lane as l
    set weight = to_weight, concurrency_max = to_concurrency_max, rate_per_s = to_rate_per_s, burst = to_burst,
        version = now_version
    where l.lane_id = lane;
    insert into outbox.operator_action (actor, action, tenant_id, detail)
    values (actor, 'limit', for_tenant, jsonb_build_object('queue', for_queue, 'before', was, 'after',
        jsonb_build_object('weight', to_weight, 'concurrency_max', to_concurrency_max, 'rate_per_s', to_rate_per_s,
                           'burst', to_burst)));
    perform pg_notify('outbox_bell', 'control');
    return now_version;
end
$$;

CREATE FUNCTION outbox.set_paused(for_queue text, for_tenant text, paused boolean, actor text, reason text DEFAULT NULL::text) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION outbox.settle_destination(wanted text, well boolean) RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    if well then
        update outbox.destination as d
        set opened_at = null, open_until = null, open_s = null, probe_until = null
        where d.name = wanted and d.open_until <= clock_timestamp();
        if found then
            delete from outbox.destination_health as h where h.name = wanted;
        end if;
    else
        update outbox.destination as d
        set open_s = least(d.open_s * 2, 3600), probe_until = null,
            open_until = clock_timestamp() + make_interval(secs => least(d.open_s * 2, 3600))
        where d.name = wanted and d.open_until <= clock_timestamp();
    end if;
    perform outbox.prune_destinations();
    perform outbox.destinations_changed();
end
$$;

CREATE FUNCTION outbox.sha1(message bytea) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    mask constant bigint := 4294967295;
    size constant int := length(message);
    padded bytea := message || '\x80'::bytea
                    || decode(repeat('00', (119 - size % 64) % 64), 'hex') || int8send(size::bigint * 8);
    h0 bigint := 1732584193; h1 bigint := 4023233417; h2 bigint := 2562383102;
    h3 bigint := 271733878;  h4 bigint := 3285377520;
    a bigint; b bigint; c bigint; d bigint; e bigint; f bigint; k bigint; t bigint;
    w bigint[];
begin
    for block in 0 .. length(padded) / 64 - 1 loop
        w := array[]::bigint[];
        for i in 0..15 loop
            t := block * 64 + i * 4;
            w[i] := (get_byte(padded, t::int)::bigint << 24) | (get_byte(padded, t::int + 1) << 16)
                    | (get_byte(padded, t::int + 2) << 8) | get_byte(padded, t::int + 3);
        end loop;
        for i in 16..79 loop
            t := w[i - 3] # w[i - 8] # w[i - 14] # w[i - 16];
            w[i] := ((t << 1) & mask) | (t >> 31);
        end loop;
        a := h0; b := h1; c := h2; d := h3; e := h4;
        for i in 0..79 loop
            if i < 20 then    f := (b & c) | ((b # mask) & d);          k := 1518500249;
            elsif i < 40 then f := b # c # d;                           k := 1859775393;
            elsif i < 60 then f := (b & c) | (b & d) | (c & d);         k := 2400959708;
            else              f := b # c # d;                           k := 3395469782;
            end if;
            t := ((((a << 5) & mask) | (a >> 27)) + f + e + k + w[i]) & mask;
            e := d; d := c; c := ((b << 30) & mask) | (b >> 2); b := a; a := t;
        end loop;
        h0 := (h0 + a) & mask; h1 := (h1 + b) & mask; h2 := (h2 + c) & mask;
        h3 := (h3 + d) & mask; h4 := (h4 + e) & mask;
    end loop;
    return substr(int8send(h0), 5) || substr(int8send(h1), 5) || substr(int8send(h2), 5)
           || substr(int8send(h3), 5) || substr(int8send(h4), 5);
end
$$;

CREATE FUNCTION outbox.step_replay(batch integer DEFAULT 200) RETURNS double precision
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    r outbox.replay_run;
    at timestamptz := clock_timestamp();
    room int;
    last_looked bigint;
    numbers bigint[];
    it record;
    said text;
    sent int := 0;
    full_up boolean := false;
begin
    select * into r from outbox.replay_run as x where x.state = 'running'
    order by x.stepped_at limit 1 for update skip locked;
    if r.run_id is null then
        return null;
    end if;
    room := batch;
    if r.rate_per_s is not null then
        -- A second's worth at most has gathered, however long nobody was there.
        r.tokens := least(greatest(r.rate_per_s, 1), r.tokens + r.rate_per_s * extract(epoch from at - r.stepped_at));
        room := least(room, floor(r.tokens));
    end if;
    if r.jobs_max is not null then
        room := least(room, r.jobs_max - r.replayed);
    end if;
    with looked as materialized (
        select d.dead_letter_id, outbox.fits_replay(d, r.filter) as fits from outbox.dead_letter as d
        where d.dead_letter_id > r.reached and d.dead_letter_id <= r.newest
          and (r.tenant_id = '*' or d.tenant_id = r.tenant_id)
        order by d.dead_letter_id limit 20000
    )
    select max(l.dead_letter_id),
           (array_agg(l.dead_letter_id order by l.dead_letter_id) filter (where l.fits))[1:batch]
    into last_looked, numbers from looked as l;
    for it in select o.* from outbox.replay_outlook(coalesce(numbers, '{}')) as o order by o.dead_letter_id loop
        said := it.verdict;
        if said = 'would_send' then
            if sent >= room then
                full_up := true;
                exit;
            end if;
            said := outbox.retry_job(it.id, r.begun_by, 'replay', it.dead_letter_id,
                                     jsonb_strip_nulls(jsonb_build_object('run_id', r.run_id, 'reason', r.reason)));
        end if;
        r.reached := it.dead_letter_id;
        case said
            when 'retried' then sent := sent + 1;
            when 'expired' then r.expired := r.expired + 1;
            when 'suppressed' then r.suppressed := r.suppressed + 1;
            when 'gone', 'erased' then r.gone := r.gone + 1;
            else r.duplicate := r.duplicate + 1;
        end case;
    end loop;
    if not full_up and coalesce(cardinality(numbers), 0) < batch then
        r.reached := coalesce(last_looked, r.newest);
    end if;
    r.replayed := r.replayed + sent;
    r.tokens := r.tokens - case when r.rate_per_s is null then 0 else sent end;
    r.state := case when last_looked is null or r.reached >= r.newest or r.replayed >= r.jobs_max then 'done' else r.state end;
    update outbox.replay_run as x
    set state = r.state, reached = r.reached, tokens = r.tokens, stepped_at = at, replayed = r.replayed,
        expired = r.expired, duplicate = r.duplicate, suppressed = r.suppressed, gone = r.gone,
        ended_at = case when r.state = 'done' then clock_timestamp() end
    where x.run_id = r.run_id;
    if sent > 0 then
        perform pg_notify('outbox_bell', '');
    end if;
    return case when full_up and r.state = 'running' and r.rate_per_s is not null
                then greatest(1 - r.tokens, 0) / r.rate_per_s else 0 end;
end
$$;

CREATE FUNCTION outbox.stop_replay(wanted uuid, actor text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    r outbox.replay_run;
begin
    select * into r from outbox.replay_run as x where x.run_id = wanted and outbox.acts_for(x.tenant_id) for update;
    if r.run_id is null then
        return 'unknown';
    elsif r.state <> 'running' then
        return 'ended';
    end if;
    update outbox.replay_run as x set state = 'stopped', ended_at = clock_timestamp(), stopped_by = actor
    where x.run_id = wanted;
    insert into outbox.operator_action (actor, action, tenant_id, detail)
    values (actor, 'replay.stop', r.tenant_id, jsonb_build_object('run_id', wanted, 'replayed', r.replayed,
            'before', jsonb_build_object('state', 'running'), 'after', jsonb_build_object('state', 'stopped')));
    return 'stopped';
end
$$;

CREATE FUNCTION outbox.store_jobs(parsed outbox.parsed[], keyed_ids bigint[], lane_ids integer[], some_expired boolean, at timestamp with time zone, traceparents text[], resend_of uuid) RETURNS bigint[]
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION outbox.store_keys(parsed outbox.parsed[]) RETURNS bigint[]
    LANGUAGE plpgsql
    AS $$
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

CREATE FUNCTION outbox.store_ordered(parsed outbox.parsed[], fresh_ids bigint[], at timestamp with time zone, address_key bytea) RETURNS void
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
declare
    key record;
    taken record;
    new_orderings bigint[] := '{}';
begin
    for key in
        select distinct p.tenant_id, p.queue, outbox.key_hash(address_key, p.tenant_id, p.queue, p.ordering_key) as hash
        from unnest(parsed) as p
        where p.ordering_key is not null and p.list_job_ids is null and (p.expires_at is null or p.expires_at > at)
          and (p.id in (select unnest(fresh_ids))) is true
        order by 3
    loop
        taken := outbox.take_ordering(key.tenant_id, key.queue, key.hash);
        if taken.is_new then
            new_orderings := new_orderings || taken.ordering_id;
        end if;
    end loop;
    insert into outbox.entry (id, available_at, expires_at, lane_id, priority, max_attempts, ordering_id, place)
    select s.id, greatest(s.send_after, clock_timestamp()), s.expires_at,
        case when s.nth = 1 and (s.ordering_id in (select unnest(new_orderings))) is true then s.lane_id else -s.lane_id end,
        s.priority, s.max_attempts, s.ordering_id, nextval('outbox.place_seq')
    from (select p.id, p.send_after, p.expires_at, p.priority, p.max_attempts, o.ordering_id, j.lane_id,
                 row_number() over (partition by o.ordering_id order by p.n) as nth
          from (select u.*, row_number() over () as n from unnest(parsed) as u) as p
          cross join lateral (
              select o.ordering_id from outbox.ordering as o
              where o.key_sha256 = outbox.key_hash(address_key, p.tenant_id, p.queue, p.ordering_key) offset 0) as o
          cross join lateral (select j.lane_id from outbox.job as j where j.id = p.id offset 0) as j
          where p.ordering_key is not null and p.list_job_ids is null and (p.expires_at is null or p.expires_at > at)
            and (p.id in (select unnest(fresh_ids))) is true
          order by p.n
          offset 0) as s;
end
$$;

CREATE FUNCTION outbox.take_ordering(tenant text, of_queue text, hash bytea, OUT ordering_id bigint, OUT is_new boolean) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
begin
    loop
        insert into outbox.ordering as o (tenant_id, queue, key_sha256) values (tenant, of_queue, hash)
        on conflict (key_sha256) do nothing
        returning o.ordering_id into take_ordering.ordering_id;
        is_new := found;
        if not found then
            select o.ordering_id into take_ordering.ordering_id
            from outbox.ordering as o where o.key_sha256 = hash for update;
        end if;
        exit when found;  -- else its last job ended while we waited
    end loop;
end
$$;

CREATE FUNCTION outbox.take_receipts(for_tenant text, for_provider uuid, provider_name text, events json) RETURNS TABLE(known integer, stored integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION outbox.test_key(key text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ('test'::text || key);

CREATE FUNCTION outbox.text_fault(job jsonb, key text, chars_max integer) RETURNS outbox.fault
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (jsonb_typeof((job -> key)) <> 'string'::text) THEN ROW(outbox.pointer(key), 'must be a string'::text)::outbox.fault WHEN ((char_length((job ->> key)) < 1) OR (char_length((job ->> key)) > chars_max)) THEN ROW(outbox.pointer(key), format('must have 1 to %s characters'::text, chars_max))::outbox.fault ELSE NULL::outbox.fault END;

CREATE FUNCTION outbox.to_faults(value jsonb, channel text) RETURNS outbox.fault[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $_$
declare
    faults outbox.fault[] := '{}';
    item jsonb;
    address text;
    at text;
begin
    if channel = 'inbox' then
        return array[('/to', 'an inbox has no address: give user_id')::outbox.fault];
    end if;
    if jsonb_typeof(value) = 'array' then
        if jsonb_array_length(value) not between 1 and 50 then
            return array[('/to', 'must have 1 to 50 addresses')::outbox.fault];
        end if;
    elsif jsonb_typeof(value) <> 'string' then
        return array[('/to', 'must be an address or a list of addresses')::outbox.fault];
    end if;
    for item, at in
        select v.item, case when jsonb_typeof(value) = 'array' then '/to/' || (v.n - 1) else '/to' end
        from jsonb_array_elements(case jsonb_typeof(value) when 'array' then value
                                  else jsonb_build_array(value) end) with ordinality as v(item, n)
    loop
        address := item #>> '{}';
        if jsonb_typeof(item) <> 'string' then
            faults := faults || (at, 'must be a string')::outbox.fault;
        elsif char_length(address) not between 1 and 2048 or address ~ '[\x01-\x20\x7f]' then
            faults := faults || (at, 'must have 1 to 2048 characters and no blank')::outbox.fault;
        elsif channel = 'email' and (address !~ '^[^@]{1,64}@[^@]{1,255}$') then
            faults := faults || (at, 'must be a mail address')::outbox.fault;
        elsif channel = 'webhook' and address !~* '^https?://[^/?#]+' then
            faults := faults || (at, 'must be an http or https URL')::outbox.fault;
        end if;
    end loop;
    return faults;
end
$_$;

CREATE FUNCTION outbox.to_odd_time(value text) RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE PARALLEL SAFE
    AS $_$
begin
    if value !~ '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9](\.[0-9]{1,9})?|60(\.0{1,9})?)([Zz]|[+-](0[0-9]|1[0-5]):[0-5][0-9])$'
       or left(value, 4)::int < 2
       or substr(value, 9, 2)::int > extract(day from make_date(left(value, 4)::int, substr(value, 6, 2)::int, 1)
                                                      + interval '1 month' - interval '1 day')
       or left(value, 4) = '9999' and value::timestamptz >= '10000-01-01 00:00:00+00' then
        return null;
    end if;
    return value::timestamptz;
end
$_$;

CREATE FUNCTION outbox.to_priority(value text) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (CASE value WHEN 'low'::text THEN 0 WHEN 'normal'::text THEN 1 WHEN 'medium'::text THEN 1 WHEN 'high'::text THEN 5 WHEN 'urgent'::text THEN 10 ELSE NULL::integer END)::smallint;

CREATE FUNCTION outbox.to_time(value text) RETURNS timestamp with time zone
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN (value ~ '^[1-8][0-9]{3}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?([Zz]|[+-](0[0-9]|1[0-5]):[0-5][0-9])$'::text) THEN (value)::timestamp with time zone WHEN (value IS NOT NULL) THEN outbox.to_odd_time(value) ELSE NULL::timestamp with time zone END;

CREATE FUNCTION outbox.tokens_now(bucket text, rate_per_s double precision, burst integer) RETURNS double precision
    LANGUAGE sql
    AS $$ select least(coalesce(burst, ceil(rate_per_s)), coalesce(
              (select b.tokens + rate_per_s * greatest(extract(epoch from clock_timestamp() - b.filled_at)::float8, 0)
               from outbox.bucket as b where b.name = bucket), 'infinity'))
          where rate_per_s is not null $$;

CREATE FUNCTION outbox.told_of(of_table text, content jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (content IS NOT NULL) THEN (((((content - ARRAY['tenant_id'::text, 'created_at'::text, 'updated_at'::text, 'created_by'::text, 'updated_by'::text, 'provider_id'::text, 'endpoint_id'::text, 'rule_id'::text, 'schedule_id'::text, 'key_id'::text, 'last_used_at'::text, 'next_at'::text, 'fired_at'::text, 'last_job_id'::text, 'last_error'::text, 'last_error_at'::text, 'fires'::text, 'missed'::text, 'credentials'::text, 'secrets'::text, 'key_sha256'::text, 'body_text'::text, 'body_html'::text, 'schema'::text, 'job'::text]) || CASE WHEN ((content ->> 'url'::text) IS NOT NULL) THEN jsonb_build_object('url', ("substring"((content ->> 'url'::text), '^[a-z]+://'::text) || "substring"((content ->> 'url'::text), '^[a-z]+://(?:[^/@?#]*@)?([^/?#]*)'::text))) ELSE '{}'::jsonb END) || CASE WHEN (jsonb_typeof((content -> 'config'::text)) = 'object'::text) THEN jsonb_build_object('config', (regexp_replace((content ->> 'config'::text), '://[^/@"]*@'::text, '://***@'::text, 'g'::text))::jsonb) ELSE '{}'::jsonb END) || CASE WHEN (((content ->> 'credentials'::text) IS NOT NULL) OR ((content ->> 'secrets'::text) IS NOT NULL)) THEN jsonb_build_object('secret', "left"(encode(sha256(convert_to((COALESCE((content ->> 'credentials'::text), ''::text) || COALESCE((content ->> 'secrets'::text), ''::text)), 'UTF8'::name)), 'hex'::text), 8)) ELSE '{}'::jsonb END) || CASE WHEN ((of_table = 'schedule'::text) AND ((content -> 'job'::text) <> 'null'::jsonb)) THEN jsonb_build_object('job', "left"(encode(sha256(convert_to((content ->> 'job'::text), 'UTF8'::name)), 'hex'::text), 8)) ELSE '{}'::jsonb END) ELSE NULL::jsonb END;

CREATE FUNCTION outbox.told_of_person(content jsonb, before jsonb DEFAULT NULL::jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (content IS NOT NULL) THEN ((content - ARRAY['tenant_id'::text, 'user_id'::text, 'device_id'::text, 'p256dh'::text, 'auth'::text, 'reason'::text, 'created_at'::text, 'updated_at'::text, 'seen_at'::text]) || (SELECT COALESCE(jsonb_object_agg(k.key, CASE WHEN (k.value = ANY (ARRAY['null'::jsonb, '{}'::jsonb])) THEN 'null'::jsonb WHEN ((COALESCE((told_of_person.before -> k.key), 'null'::jsonb) = ANY (ARRAY['null'::jsonb, '{}'::jsonb])) OR (COALESCE((told_of_person.before -> k.key), 'null'::jsonb) = k.value)) THEN '"set"'::jsonb ELSE '"changed"'::jsonb END), '{}'::jsonb) AS "coalesce" FROM jsonb_each(told_of_person.content) k(key, value) WHERE (k.key = ANY (ARRAY['email'::text, 'phone'::text, 'telegram_chat_id'::text, 'attributes'::text, 'quiet_hours'::text, 'address'::text])))) ELSE NULL::jsonb END;

CREATE FUNCTION outbox.unknown_faults(rest jsonb) RETURNS outbox.fault[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ARRAY(SELECT ROW(outbox.pointer(k.key), 'is not a known field'::text)::outbox.fault AS "row" FROM jsonb_object_keys((unknown_faults.rest - ARRAY['to'::text, 'subject'::text, 'content'::text, 'queue'::text, 'tenant_id'::text, 'idempotency_key'::text, 'category'::text, 'ordering_key'::text, 'dedup_key'::text, 'dedup_window_s'::text, 'dedup_policy'::text, 'max_attempts'::text, 'timeout_s'::text, 'headers'::text, 'attachments'::text, 'payload'::text, 'endpoint'::text])) k(key) LIMIT 20);

CREATE FUNCTION outbox.unseen_by(wanted bigint) RETURNS integer
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ select count(*)::int from outbox.dispatcher as d
          where not d.fenced and d.rescued_at is null and d.seen_version < wanted
            and d.heartbeat_at > clock_timestamp() - make_interval(secs => d.lease_s) $$;

CREATE FUNCTION outbox.uuid7() RETURNS uuid
    LANGUAGE sql PARALLEL SAFE
    RETURN (encode(set_bit(set_bit(OVERLAY(uuid_send(gen_random_uuid()) PLACING substr(int8send(((EXTRACT(epoch FROM clock_timestamp()) * (1000)::numeric))::bigint), 3) FROM 1 FOR 6), (52)::bigint, 1), (53)::bigint, 1), 'hex'::text))::uuid;

CREATE FUNCTION outbox.waits_for(claimed_by bigint, lane_id integer, paused_at timestamp with time zone, held_at timestamp with time zone, scope text, available_at timestamp with time zone, waits smallint) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN ((lane_id IS NULL) OR (claimed_by IS NOT NULL)) THEN NULL::text WHEN (lane_id < 0) THEN 'ordering head'::text WHEN (paused_at IS NOT NULL) THEN 'lane paused'::text WHEN (held_at IS NOT NULL) THEN 'lane held'::text WHEN (available_at > clock_timestamp()) THEN CASE waits WHEN 1 THEN 'backoff'::text WHEN 2 THEN 'snooze'::text WHEN 3 THEN 'destination paused'::text WHEN 4 THEN 'no handler'::text ELSE 'send_after'::text END WHEN (scope ~~ 'destination:%'::text) THEN 'destination'::text ELSE 'dispatcher'::text END;

CREATE FUNCTION outbox.whole_job(job_id uuid, created_at timestamp with time zone, job jsonb) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (jsonb_build_object('job_id', job_id, 'created_at', to_char((created_at AT TIME ZONE 'utc'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text)) || job);

CREATE FUNCTION outbox.without_nulls(object jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
begin
    -- (To write it out costs less than to look at each member.)
    if strpos(object::text, ': null') = 0 then
        return object;
    end if;
    return object - array(select e.key from jsonb_each(object) as e where e.value = 'null');
end
$$;

CREATE AGGREGATE outbox.sum_counts(bigint[]) (
    SFUNC = outbox.add_counts,
    STYPE = bigint[],
    PARALLEL = safe
);

CREATE TABLE outbox.alert (
    alert_id bigint NOT NULL,
    rule text NOT NULL,
    subject text NOT NULL,
    severity text NOT NULL,
    state text NOT NULL,
    streak integer NOT NULL,
    value double precision NOT NULL,
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    opened_at timestamp with time zone,
    closed_at timestamp with time zone,
    acknowledged_at timestamp with time zone,
    acknowledged_by text,
    CONSTRAINT alert_state_check CHECK ((state = ANY (ARRAY['pending'::text, 'open'::text, 'closed'::text])))
);

ALTER TABLE ONLY outbox.alert FORCE ROW LEVEL SECURITY;

ALTER TABLE outbox.alert ALTER COLUMN alert_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.alert_alert_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE outbox.alert_round (
    only_row boolean DEFAULT true NOT NULL,
    next_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL,
    dead_letter_seen bigint,
    CONSTRAINT alert_round_only_row_check CHECK (only_row)
);

ALTER TABLE ONLY outbox.alert_round FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.api_key (
    key_id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    key_sha256 bytea NOT NULL,
    prefix text NOT NULL,
    tenant_id text NOT NULL,
    scopes text[] NOT NULL,
    mode text DEFAULT 'live'::text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    expires_at timestamp with time zone,
    last_used_at timestamp with time zone,
    revoked_at timestamp with time zone,
    CONSTRAINT api_key_check CHECK (((mode = 'live'::text) OR (NOT ('admin'::text = ANY (scopes))))),
    CONSTRAINT api_key_mode_check CHECK ((mode = ANY (ARRAY['live'::text, 'test'::text]))),
    CONSTRAINT api_key_scopes_check CHECK ((scopes <@ ARRAY['jobs:write'::text, 'jobs:read'::text, 'admin'::text]))
);

ALTER TABLE ONLY outbox.api_key FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.lane (
    lane_id integer NOT NULL,
    tenant_id text NOT NULL,
    queue text NOT NULL,
    scope text DEFAULT ''::text NOT NULL,
    weight smallint DEFAULT 1 NOT NULL,
    concurrency_max integer,
    rate_per_s double precision,
    burst integer,
    paused_at timestamp with time zone,
    paused_by text,
    own_paused_at timestamp with time zone,
    own_paused_by text,
    held_at timestamp with time zone,
    hold_code text,
    hold_reason text,
    probe_at timestamp with time zone,
    probe_s integer,
    probe_until timestamp with time zone,
    version bigint DEFAULT 0 NOT NULL,
    CONSTRAINT lane_burst_check CHECK (((burst >= 1) AND (burst <= 1000000))),
    CONSTRAINT lane_concurrency_max_check CHECK (((concurrency_max >= 1) AND (concurrency_max <= 100000))),
    CONSTRAINT lane_rate_per_s_check CHECK (((rate_per_s >= (0.001)::double precision) AND (rate_per_s <= (1000000)::double precision))),
    CONSTRAINT lane_weight_check CHECK (((weight >= 1) AND (weight <= 1000)))
);

ALTER TABLE ONLY outbox.lane FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.receipt (
    receipt_id bigint NOT NULL,
    id bigint NOT NULL,
    tenant_id text NOT NULL,
    status text NOT NULL,
    at timestamp with time zone NOT NULL,
    provider text,
    detail text
);

ALTER TABLE ONLY outbox.receipt FORCE ROW LEVEL SECURITY;

CREATE VIEW outbox.api_notification WITH (security_invoker='true') AS
 SELECT j.job_id,
    j.tenant_id,
    j.user_id,
    j.channel,
    j.queue,
    j.template_code,
    j.locale,
    j.event_id,
    j.campaign_id,
    j.category,
    outbox.from_priority(j.priority) AS priority,
        CASE
            WHEN (e.id IS NOT NULL) THEN outbox.live_status(e.claimed_by, e.available_at, e.waits)
            ELSE outbox.ended_status(d.status)
        END AS status,
    outbox.waits_for(e.claimed_by, e.lane_id, l.paused_at, l.held_at, l.scope, e.available_at, e.waits) AS waiting_for,
    j.created_at,
    outbox.id_time(j.id) AS accepted_at,
    j.send_after,
    j.expires_at,
    e.available_at AS due_at,
        CASE
            WHEN (e.id IS NULL) THEN d.finished_at
            ELSE NULL::timestamp with time zone
        END AS finished_at,
    COALESCE(e.series, d.series) AS series,
    COALESCE(e.attempt, d.attempt) AS attempts,
    COALESCE((e.max_attempts)::integer, 0) AS max_attempts,
    d.error_class AS last_error_class,
    d.error_code AS last_error_code,
    d.error_message AS last_error,
    r.status AS receipt_status,
    r.at AS receipt_at,
    j.resend_of,
    j.list_job_id,
        CASE
            WHEN j.test THEN 'test'::text
            ELSE 'live'::text
        END AS mode,
        CASE
            WHEN (e.claimed_by IS NULL) THEN COALESCE(l.paused_at, l.held_at)
            ELSE NULL::timestamp with time zone
        END AS stopped_at,
        CASE
            WHEN (e.claimed_by IS NULL) THEN l.paused_by
            ELSE NULL::text
        END AS paused_by,
        CASE
            WHEN (e.claimed_by IS NULL) THEN l.hold_code
            ELSE NULL::text
        END AS hold_code,
        CASE
            WHEN (e.claimed_by IS NULL) THEN l.hold_reason
            ELSE NULL::text
        END AS hold_reason,
    j.id
   FROM ((((outbox.job j
     LEFT JOIN outbox.entry e ON ((e.id = j.id)))
     LEFT JOIN outbox.lane l ON ((l.lane_id = abs(e.lane_id))))
     LEFT JOIN LATERAL ( SELECT d_1.status,
            d_1.finished_at,
            d_1.series,
            d_1.attempt,
            d_1.error_class,
            d_1.error_code,
            d_1.error_message
           FROM outbox.delivery d_1
          WHERE ((d_1.id = j.id) AND (NOT d_1.late))
          ORDER BY d_1.lease_no DESC
         LIMIT 1) d ON (true))
     LEFT JOIN LATERAL ( SELECT r_1.status,
            r_1.at
           FROM outbox.receipt r_1
          WHERE (r_1.id = j.id)
          ORDER BY (array_position(ARRAY['missing'::text, 'delivered'::text, 'opened'::text, 'bounced'::text, 'complained'::text, 'opted_out'::text], r_1.status)) DESC
         LIMIT 1) r ON (true));

CREATE VIEW outbox.api_notification_delivery WITH (security_invoker='true') AS
 SELECT j.job_id,
    j.tenant_id,
    j.user_id,
    j.channel,
    j.queue,
    j.template_code,
    d.template_version,
    COALESCE(d.locale, j.locale) AS locale,
    j.event_id,
    j.campaign_id,
    j.category,
    d.recipient,
    d.subject,
    encode(d.content_sha256, 'hex'::text) AS content_sha256,
    d.series,
    d.attempt,
    d.lease_no,
    d.late,
    d.status,
    d.provider,
    d.provider_message_id,
    d.error_class,
    d.error_code,
    d.error_message,
    d.started_at,
    d.finished_at,
    d.duration_ms,
    d.next_attempt_at,
    d.recipient_hash,
    outbox.id_time(j.id) AS accepted_at,
    j.send_after,
    j.expires_at,
    j.id,
    d.id AS delivery_id
   FROM (outbox.delivery d
     JOIN outbox.job j ON ((j.id = d.id)));

CREATE TABLE outbox.operator_action (
    action_id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    tenant_id text NOT NULL,
    id bigint,
    detail jsonb DEFAULT '{}'::jsonb NOT NULL
);

ALTER TABLE ONLY outbox.operator_action FORCE ROW LEVEL SECURITY;

CREATE VIEW outbox.api_notification_history WITH (security_invoker='true') AS
 SELECT j.job_id,
    h.status,
    h.at,
    h.attempt,
    h.error,
    j.tenant_id,
    h.series,
    h.step,
    j.id
   FROM (outbox.job j
     CROSS JOIN LATERAL ( WITH d AS (
                 SELECT d.lease_no,
                    d.late,
                    d.terminal,
                    d.status,
                    d.series,
                    d.attempt,
                    d.started_at,
                    d.finished_at,
                    d.next_attempt_at,
                    d.error_class,
                    d.error_code,
                    d.error_message
                   FROM outbox.delivery d
                  WHERE (d.id = j.id)
                ), a AS (
                 SELECT a.action,
                    a.at,
                    a.detail
                   FROM outbox.operator_action a
                  WHERE ((a.id = j.id) AND (a.action = ANY (ARRAY['retry'::text, 'replay'::text, 'promote'::text])))
                )
         SELECT
                CASE
                    WHEN (j.send_after > outbox.id_time(j.id)) THEN 'scheduled'::text
                    ELSE 'pending'::text
                END AS status,
            outbox.id_time(j.id) AS at,
            0 AS attempt,
            NULL::text AS error,
            (1)::smallint AS series,
            0 AS step
          WHERE ((j.expires_at IS NULL) OR (NOT (EXISTS ( SELECT
                   FROM d
                  WHERE (d.lease_no = 0)))))
        UNION ALL
         SELECT 'pending'::text AS status,
            j.send_after,
            0,
            NULL::text AS error,
            (1)::smallint AS series,
            1
          WHERE ((j.send_after > outbox.id_time(j.id)) AND (j.send_after <= clock_timestamp()) AND (NOT (EXISTS ( SELECT
                   FROM d
                  WHERE (COALESCE(d.started_at, d.finished_at) < j.send_after)))) AND (NOT (EXISTS ( SELECT
                   FROM a
                  WHERE ((a.action = 'promote'::text) AND (a.at < j.send_after))))))
        UNION ALL
         SELECT 'pending'::text AS status,
            a.at,
                CASE
                    WHEN (a.action = 'promote'::text) THEN COALESCE((( SELECT d.attempt
                       FROM d
                      WHERE ((NOT d.late) AND (d.finished_at < a.at))
                      ORDER BY d.lease_no DESC
                     LIMIT 1))::integer, 0)
                    ELSE 0
                END AS "case",
            NULL::text AS error,
            ((a.detail ->> 'series'::text))::smallint AS series,
            2
           FROM a
        UNION ALL
         SELECT 'processing'::text AS status,
            d.started_at,
            d.attempt,
            NULL::text AS error,
            d.series,
            3
           FROM d
          WHERE ((d.started_at IS NOT NULL) AND (NOT d.late))
        UNION ALL
         SELECT
                CASE
                    WHEN d.terminal THEN outbox.ended_status(d.status)
                    WHEN ((d.error_class = 'held'::text) OR (d.error_code = 'lease.lost'::text) OR (d.next_attempt_at <= d.finished_at)) THEN 'pending'::text
                    WHEN (d.error_class = 'snoozed'::text) THEN 'scheduled'::text
                    ELSE 'retrying'::text
                END AS "case",
            d.finished_at,
            d.attempt,
            COALESCE(d.error_message, d.error_code) AS "coalesce",
            d.series,
            4
           FROM d
          WHERE (NOT d.late)
        UNION ALL
         SELECT 'pending'::text AS status,
            d.next_attempt_at,
            d.attempt,
            NULL::text AS error,
            d.series,
            5
           FROM d
          WHERE ((NOT d.late) AND (NOT d.terminal) AND (d.next_attempt_at > d.finished_at) AND (d.next_attempt_at <= clock_timestamp()) AND (d.error_class IS DISTINCT FROM 'held'::text) AND (d.error_code IS DISTINCT FROM 'lease.lost'::text) AND (NOT (EXISTS ( SELECT
                   FROM d n
                  WHERE ((n.lease_no > d.lease_no) AND (NOT n.late) AND (COALESCE(n.started_at, n.finished_at) < d.next_attempt_at))))) AND (NOT (EXISTS ( SELECT
                   FROM a
                  WHERE ((a.action = 'promote'::text) AND (a.at >= d.finished_at) AND (a.at < d.next_attempt_at))))))
        UNION ALL
         SELECT 'processing'::text AS status,
            e.claimed_at,
            e.attempt,
            NULL::text AS error,
            e.series,
            6
           FROM outbox.entry e
          WHERE ((e.id = j.id) AND (e.claimed_by IS NOT NULL))) h);

CREATE TABLE outbox.api_process (
    process_id bigint NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    schema_revision integer NOT NULL,
    pid integer NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    heartbeat_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

ALTER TABLE ONLY outbox.api_process FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.bucket (
    name text NOT NULL,
    tokens double precision DEFAULT 'Infinity'::double precision NOT NULL,
    filled_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_threshold='200', autovacuum_vacuum_cost_delay='0');

CREATE TABLE outbox.chore (
    chore text NOT NULL,
    done_at timestamp with time zone DEFAULT '-infinity'::timestamp with time zone NOT NULL
);

CREATE TABLE outbox.control (
    only_row boolean DEFAULT true NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    catalog bigint DEFAULT 1 NOT NULL,
    destinations bigint DEFAULT 1 NOT NULL,
    CONSTRAINT control_only_row_check CHECK (only_row)
);

ALTER TABLE outbox.dead_letter ALTER COLUMN dead_letter_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.dead_letter_dead_letter_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE outbox.dedup (
    key_sha256 bytea NOT NULL,
    tenant_id text NOT NULL,
    id bigint NOT NULL,
    until timestamp with time zone NOT NULL
);

ALTER TABLE ONLY outbox.dedup FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.dedup_alias (
    id bigint NOT NULL,
    tenant_id text NOT NULL,
    job_id uuid NOT NULL
);

ALTER TABLE ONLY outbox.dedup_alias FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.destination (
    name text NOT NULL,
    rate_per_s double precision,
    burst integer,
    paused_until timestamp with time zone,
    opened_at timestamp with time zone,
    open_until timestamp with time zone,
    open_s double precision,
    probe_until timestamp with time zone,
    changed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT destination_burst_check CHECK (((burst >= 1) AND (burst <= 1000000))),
    CONSTRAINT destination_name_check CHECK ((name ~ '^(host|endpoint|provider):[!-~]{1,255}$'::text)),
    CONSTRAINT destination_rate_per_s_check CHECK (((rate_per_s >= (0.001)::double precision) AND (rate_per_s <= (1000000)::double precision)))
);

CREATE TABLE outbox.destination_health (
    name text NOT NULL,
    epoch bigint NOT NULL,
    good integer NOT NULL,
    bad integer NOT NULL,
    told_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT destination_health_name_check CHECK ((name ~ '^(host|endpoint|provider):[!-~]{1,255}$'::text))
)
WITH (fillfactor='50', autovacuum_vacuum_threshold='200', autovacuum_vacuum_cost_delay='0');

CREATE TABLE outbox.device (
    device_id uuid DEFAULT gen_random_uuid() NOT NULL,
    tenant_id text NOT NULL,
    user_id text NOT NULL,
    channel text NOT NULL,
    address text NOT NULL,
    p256dh text,
    auth text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT device_address_check CHECK (((octet_length(address) >= 1) AND (octet_length(address) <= 2048))),
    CONSTRAINT device_channel_check CHECK ((channel = ANY (ARRAY['push'::text, 'browser'::text]))),
    CONSTRAINT device_check CHECK (((channel = 'browser'::text) = ((p256dh IS NOT NULL) AND (auth IS NOT NULL)))),
    CONSTRAINT device_user_id_check CHECK (((char_length(user_id) >= 1) AND (char_length(user_id) <= 128)))
);

ALTER TABLE ONLY outbox.device FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.dispatcher (
    epoch bigint NOT NULL,
    name text NOT NULL,
    version text NOT NULL,
    pid integer NOT NULL,
    queues text[],
    handlers text[] DEFAULT '{}'::text[] NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    heartbeat_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    seen_version bigint DEFAULT 0 NOT NULL,
    lease_s double precision DEFAULT 60 NOT NULL,
    locks boolean DEFAULT true NOT NULL,
    schema_revision integer DEFAULT 0 NOT NULL,
    fenced boolean DEFAULT false NOT NULL,
    rescued_at timestamp with time zone
);

CREATE TABLE outbox.event (
    tenant_id text NOT NULL,
    event_id uuid NOT NULL,
    event_type text NOT NULL,
    user_id text,
    data jsonb NOT NULL,
    occurred_at timestamp with time zone NOT NULL,
    accepted_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    content_sha256 bytea NOT NULL,
    jobs uuid[] DEFAULT '{}'::uuid[] NOT NULL
);

ALTER TABLE ONLY outbox.event FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.handler (
    kind text NOT NULL,
    name text NOT NULL,
    seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT handler_kind_check CHECK ((kind = ANY (ARRAY['channel'::text, 'queue'::text])))
);

CREATE TABLE outbox.inbox_message (
    message_id bigint NOT NULL,
    id bigint NOT NULL,
    series smallint DEFAULT 1 NOT NULL,
    tenant_id text NOT NULL,
    user_id text NOT NULL,
    subject text,
    body text NOT NULL,
    data jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    read_at timestamp with time zone
);

ALTER TABLE ONLY outbox.inbox_message FORCE ROW LEVEL SECURITY;

ALTER TABLE outbox.inbox_message ALTER COLUMN message_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.inbox_message_message_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE outbox.job_key_0 (
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    id bigint NOT NULL,
    content_sha256 bytea NOT NULL
);

CREATE TABLE outbox.job_key_1 (
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    id bigint NOT NULL,
    content_sha256 bytea NOT NULL
);

CREATE TABLE outbox.job_key_2 (
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    id bigint NOT NULL,
    content_sha256 bytea NOT NULL
);

CREATE TABLE outbox.job_key_3 (
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    id bigint NOT NULL,
    content_sha256 bytea NOT NULL
);

CREATE TABLE outbox.job_key_4 (
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    id bigint NOT NULL,
    content_sha256 bytea NOT NULL
);

CREATE TABLE outbox.job_key_5 (
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    id bigint NOT NULL,
    content_sha256 bytea NOT NULL
);

CREATE TABLE outbox.job_key_6 (
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    id bigint NOT NULL,
    content_sha256 bytea NOT NULL
);

CREATE TABLE outbox.job_key_7 (
    tenant_id text NOT NULL,
    job_id uuid NOT NULL,
    id bigint NOT NULL,
    content_sha256 bytea NOT NULL
);

CREATE TABLE outbox.known_error_code (
    code text NOT NULL,
    at timestamp with time zone NOT NULL
);

ALTER TABLE ONLY outbox.known_error_code FORCE ROW LEVEL SECURITY;

ALTER TABLE outbox.lane ALTER COLUMN lane_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.lane_lane_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE outbox.lane_share (
    lane_id integer NOT NULL,
    epoch bigint NOT NULL,
    places integer NOT NULL,
    wanted integer NOT NULL
)
WITH (fillfactor='50', autovacuum_vacuum_threshold='200', autovacuum_vacuum_cost_delay='0');

CREATE VIEW outbox.notification AS
 SELECT j.job_id,
    j.tenant_id,
    j.user_id,
    j.channel,
    j.queue,
    j.template_code,
    j.locale,
    j.event_id,
    j.campaign_id,
    j.category,
    outbox.from_priority(j.priority) AS priority,
        CASE
            WHEN (e.id IS NOT NULL) THEN outbox.live_status(e.claimed_by, e.available_at, e.waits)
            ELSE outbox.ended_status(d.status)
        END AS status,
    outbox.waits_for(e.claimed_by, e.lane_id, l.paused_at, l.held_at, l.scope, e.available_at, e.waits) AS waiting_for,
    j.created_at,
    outbox.id_time(j.id) AS accepted_at,
    j.send_after,
    j.expires_at,
    e.available_at AS due_at,
        CASE
            WHEN (e.id IS NULL) THEN d.finished_at
            ELSE NULL::timestamp with time zone
        END AS finished_at,
    COALESCE(e.series, d.series) AS series,
    COALESCE(e.attempt, d.attempt) AS attempts,
    COALESCE((e.max_attempts)::integer, 0) AS max_attempts,
    d.error_class AS last_error_class,
    d.error_code AS last_error_code,
    d.error_message AS last_error,
    r.status AS receipt_status,
    r.at AS receipt_at,
    j.resend_of,
    j.list_job_id,
        CASE
            WHEN j.test THEN 'test'::text
            ELSE 'live'::text
        END AS mode,
        CASE
            WHEN (e.claimed_by IS NULL) THEN COALESCE(l.paused_at, l.held_at)
            ELSE NULL::timestamp with time zone
        END AS stopped_at,
        CASE
            WHEN (e.claimed_by IS NULL) THEN l.paused_by
            ELSE NULL::text
        END AS paused_by,
        CASE
            WHEN (e.claimed_by IS NULL) THEN l.hold_code
            ELSE NULL::text
        END AS hold_code,
        CASE
            WHEN (e.claimed_by IS NULL) THEN l.hold_reason
            ELSE NULL::text
        END AS hold_reason,
    j.id
   FROM ((((outbox.job j
     LEFT JOIN outbox.entry e ON ((e.id = j.id)))
     LEFT JOIN outbox.lane l ON ((l.lane_id = abs(e.lane_id))))
     LEFT JOIN LATERAL ( SELECT d_1.status,
            d_1.finished_at,
            d_1.series,
            d_1.attempt,
            d_1.error_class,
            d_1.error_code,
            d_1.error_message
           FROM outbox.delivery d_1
          WHERE ((d_1.id = j.id) AND (NOT d_1.late))
          ORDER BY d_1.lease_no DESC
         LIMIT 1) d ON (true))
     LEFT JOIN LATERAL ( SELECT r_1.status,
            r_1.at
           FROM outbox.receipt r_1
          WHERE (r_1.id = j.id)
          ORDER BY (array_position(ARRAY['missing'::text, 'delivered'::text, 'opened'::text, 'bounced'::text, 'complained'::text, 'opted_out'::text], r_1.status)) DESC
         LIMIT 1) r ON (true));

COMMENT ON VIEW outbox.notification IS 'One row for each job, the waiting ones too.';

CREATE VIEW outbox.notification_backlog AS
 SELECT l.queue,
    l.tenant_id,
    count(*) FILTER (WHERE ((e.claimed_by IS NULL) AND (e.available_at <= clock_timestamp()))) AS waiting,
    count(*) FILTER (WHERE (e.claimed_by IS NOT NULL)) AS active,
    count(*) FILTER (WHERE ((e.claimed_by IS NULL) AND (e.available_at > clock_timestamp()))) AS delayed,
    min(e.available_at) FILTER (WHERE ((e.claimed_by IS NULL) AND (e.lane_id > 0) AND (e.available_at <= clock_timestamp()))) AS oldest_waiting_at
   FROM (outbox.entry e
     JOIN outbox.lane l ON ((l.lane_id = abs(e.lane_id))))
  WHERE ((l.scope <> 'test'::text) AND (NOT starts_with(l.scope, 'test:'::text)))
  GROUP BY l.queue, l.tenant_id;

COMMENT ON VIEW outbox.notification_backlog IS 'What waits and runs now, without test jobs, by queue and tenant.';

CREATE TABLE outbox.stat_hour (
    at timestamp with time zone NOT NULL,
    lane_id integer NOT NULL,
    sent bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    retrying bigint DEFAULT 0 NOT NULL,
    expired bigint DEFAULT 0 NOT NULL,
    cancelled bigint DEFAULT 0 NOT NULL,
    rescued bigint DEFAULT 0 NOT NULL,
    late bigint DEFAULT 0 NOT NULL,
    durations integer[],
    pickups integer[],
    arrivals integer[]
);

ALTER TABLE ONLY outbox.stat_hour FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.stat_second (
    at timestamp with time zone NOT NULL,
    epoch bigint,
    duration_ms_sum bigint DEFAULT 0 NOT NULL,
    lane_id integer NOT NULL,
    sent integer DEFAULT 0 NOT NULL,
    failed integer DEFAULT 0 NOT NULL,
    retrying integer DEFAULT 0 NOT NULL,
    expired integer DEFAULT 0 NOT NULL,
    cancelled integer DEFAULT 0 NOT NULL,
    rescued integer DEFAULT 0 NOT NULL,
    late integer DEFAULT 0 NOT NULL,
    pickup_ms_sum bigint DEFAULT 0 NOT NULL,
    durations integer[],
    pickups integer[],
    arrivals integer[],
    attempts jsonb,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    ids bigint[],
    lease_nos integer[]
);

ALTER TABLE ONLY outbox.stat_second FORCE ROW LEVEL SECURITY;

CREATE VIEW outbox.notification_count AS
 SELECT s.at,
    l.tenant_id,
    l.queue,
    s.sent,
    s.failed,
    s.expired,
    s.cancelled,
    s.retrying,
    s.rescued,
    s.late,
    s.pickups,
    s.arrivals
   FROM (( SELECT h.at,
            h.lane_id,
            h.sent,
            h.failed,
            h.expired,
            h.cancelled,
            h.retrying,
            h.rescued,
            h.late,
            h.pickups,
            h.arrivals
           FROM outbox.stat_hour h
        UNION ALL
         SELECT date_trunc('hour'::text, n.at) AS date_trunc,
            n.lane_id,
            n.sent,
            n.failed,
            n.expired,
            n.cancelled,
            n.retrying,
            n.rescued,
            n.late,
            n.pickups,
            n.arrivals
           FROM outbox.stat_second n) s
     JOIN outbox.lane l ON ((l.lane_id = s.lane_id)))
  WHERE ((l.scope <> 'test'::text) AND (NOT starts_with(l.scope, 'test:'::text)));

COMMENT ON VIEW outbox.notification_count IS 'Counts, without test jobs, by hour, queue and tenant of what happened then, in any number of rows, with histograms (outbox.quantile_s).';

CREATE VIEW outbox.notification_delivery AS
 SELECT j.job_id,
    j.tenant_id,
    j.user_id,
    j.channel,
    j.queue,
    j.template_code,
    d.template_version,
    COALESCE(d.locale, j.locale) AS locale,
    j.event_id,
    j.campaign_id,
    j.category,
    d.recipient,
    d.subject,
    encode(d.content_sha256, 'hex'::text) AS content_sha256,
    d.series,
    d.attempt,
    d.lease_no,
    d.late,
    d.status,
    d.provider,
    d.provider_message_id,
    d.error_class,
    d.error_code,
    d.error_message,
    d.started_at,
    d.finished_at,
    d.duration_ms,
    d.next_attempt_at,
    d.recipient_hash,
    outbox.id_time(j.id) AS accepted_at,
    j.send_after,
    j.expires_at,
    j.id,
    d.id AS delivery_id
   FROM (outbox.delivery d
     JOIN outbox.job j ON ((j.id = d.id)));

COMMENT ON VIEW outbox.notification_delivery IS 'One row for each attempt and each terminal event; never changed afterwards.';

COMMENT ON COLUMN outbox.notification_delivery.delivery_id IS 'The same number as id: a range over days bounds both, so that only those days'' partitions are read.';

CREATE VIEW outbox.notification_history AS
 SELECT j.job_id,
    h.status,
    h.at,
    h.attempt,
    h.error,
    j.tenant_id,
    h.series,
    h.step,
    j.id
   FROM (outbox.job j
     CROSS JOIN LATERAL ( WITH d AS (
                 SELECT d.lease_no,
                    d.late,
                    d.terminal,
                    d.status,
                    d.series,
                    d.attempt,
                    d.started_at,
                    d.finished_at,
                    d.next_attempt_at,
                    d.error_class,
                    d.error_code,
                    d.error_message
                   FROM outbox.delivery d
                  WHERE (d.id = j.id)
                ), a AS (
                 SELECT a.action,
                    a.at,
                    a.detail
                   FROM outbox.operator_action a
                  WHERE ((a.id = j.id) AND (a.action = ANY (ARRAY['retry'::text, 'replay'::text, 'promote'::text])))
                )
         SELECT
                CASE
                    WHEN (j.send_after > outbox.id_time(j.id)) THEN 'scheduled'::text
                    ELSE 'pending'::text
                END AS status,
            outbox.id_time(j.id) AS at,
            0 AS attempt,
            NULL::text AS error,
            (1)::smallint AS series,
            0 AS step
          WHERE ((j.expires_at IS NULL) OR (NOT (EXISTS ( SELECT
                   FROM d
                  WHERE (d.lease_no = 0)))))
        UNION ALL
         SELECT 'pending'::text AS status,
            j.send_after,
            0,
            NULL::text AS error,
            (1)::smallint AS series,
            1
          WHERE ((j.send_after > outbox.id_time(j.id)) AND (j.send_after <= clock_timestamp()) AND (NOT (EXISTS ( SELECT
                   FROM d
                  WHERE (COALESCE(d.started_at, d.finished_at) < j.send_after)))) AND (NOT (EXISTS ( SELECT
                   FROM a
                  WHERE ((a.action = 'promote'::text) AND (a.at < j.send_after))))))
        UNION ALL
         SELECT 'pending'::text AS status,
            a.at,
                CASE
                    WHEN (a.action = 'promote'::text) THEN COALESCE((( SELECT d.attempt
                       FROM d
                      WHERE ((NOT d.late) AND (d.finished_at < a.at))
                      ORDER BY d.lease_no DESC
                     LIMIT 1))::integer, 0)
                    ELSE 0
                END AS "case",
            NULL::text AS error,
            ((a.detail ->> 'series'::text))::smallint AS series,
            2
           FROM a
        UNION ALL
         SELECT 'processing'::text AS status,
            d.started_at,
            d.attempt,
            NULL::text AS error,
            d.series,
            3
           FROM d
          WHERE ((d.started_at IS NOT NULL) AND (NOT d.late))
        UNION ALL
         SELECT
                CASE
                    WHEN d.terminal THEN outbox.ended_status(d.status)
                    WHEN ((d.error_class = 'held'::text) OR (d.error_code = 'lease.lost'::text) OR (d.next_attempt_at <= d.finished_at)) THEN 'pending'::text
                    WHEN (d.error_class = 'snoozed'::text) THEN 'scheduled'::text
                    ELSE 'retrying'::text
                END AS "case",
            d.finished_at,
            d.attempt,
            COALESCE(d.error_message, d.error_code) AS "coalesce",
            d.series,
            4
           FROM d
          WHERE (NOT d.late)
        UNION ALL
         SELECT 'pending'::text AS status,
            d.next_attempt_at,
            d.attempt,
            NULL::text AS error,
            d.series,
            5
           FROM d
          WHERE ((NOT d.late) AND (NOT d.terminal) AND (d.next_attempt_at > d.finished_at) AND (d.next_attempt_at <= clock_timestamp()) AND (d.error_class IS DISTINCT FROM 'held'::text) AND (d.error_code IS DISTINCT FROM 'lease.lost'::text) AND (NOT (EXISTS ( SELECT
                   FROM d n
                  WHERE ((n.lease_no > d.lease_no) AND (NOT n.late) AND (COALESCE(n.started_at, n.finished_at) < d.next_attempt_at))))) AND (NOT (EXISTS ( SELECT
                   FROM a
                  WHERE ((a.action = 'promote'::text) AND (a.at >= d.finished_at) AND (a.at < d.next_attempt_at))))))
        UNION ALL
         SELECT 'processing'::text AS status,
            e.claimed_at,
            e.attempt,
            NULL::text AS error,
            e.series,
            6
           FROM outbox.entry e
          WHERE ((e.id = j.id) AND (e.claimed_by IS NOT NULL))) h);

COMMENT ON VIEW outbox.notification_history IS 'Every change of a job''s state; order by job_id, series, at, step.';

CREATE VIEW outbox.notification_replay AS
 SELECT j.job_id,
    j.tenant_id,
    j.user_id,
    j.channel,
    j.queue,
    j.template_code,
    j.event_id,
    j.campaign_id,
    a.action,
    a.at AS replayed_at,
    a.actor AS replayed_by,
    a.series,
    f.failed_attempts,
    f.failed_at,
    l.reason,
    f.error_class,
    f.error_code,
    f.error_message,
    f.outcome,
    f.outcome_at,
    a.id,
    a.why,
    a.run_id
   FROM (((( SELECT a_1.id,
            a_1.action,
            a_1.at,
            a_1.actor,
            ((a_1.detail ->> 'series'::text))::smallint AS series,
            (a_1.detail ->> 'reason'::text) AS why,
            ((a_1.detail ->> 'run_id'::text))::uuid AS run_id
           FROM outbox.operator_action a_1
          WHERE (a_1.action = ANY (ARRAY['retry'::text, 'replay'::text]))) a
     CROSS JOIN LATERAL ( SELECT j_1.job_id,
            j_1.tenant_id,
            j_1.user_id,
            j_1.channel,
            j_1.queue,
            j_1.template_code,
            j_1.event_id,
            j_1.campaign_id
           FROM outbox.job j_1
          WHERE (j_1.id = a.id)
         OFFSET 0) j)
     LEFT JOIN LATERAL ( SELECT max(d.attempt) FILTER (WHERE (d.series < a.series)) AS failed_attempts,
            max(d.finished_at) FILTER (WHERE (d.series < a.series)) AS failed_at,
            max(d.error_class) FILTER (WHERE (d.series < a.series)) AS error_class,
            max(d.error_code) FILTER (WHERE (d.series < a.series)) AS error_code,
            max(d.error_message) FILTER (WHERE (d.series < a.series)) AS error_message,
            max(d.status) FILTER (WHERE (d.series = a.series)) AS outcome,
            max(d.finished_at) FILTER (WHERE (d.series = a.series)) AS outcome_at
           FROM outbox.delivery d
          WHERE ((d.id = a.id) AND ((d.series >= (a.series - 1)) AND (d.series <= a.series)) AND d.terminal AND (NOT d.late))) f ON (true))
     LEFT JOIN LATERAL ( SELECT l_1.reason
           FROM outbox.dead_letter l_1
          WHERE ((l_1.id = a.id) AND (l_1.series = (a.series - 1)))
          ORDER BY l_1.dead_letter_id DESC
         LIMIT 1) l ON (true));

COMMENT ON VIEW outbox.notification_replay IS 'One row for each new series of a failed job: what had failed, who asked for it when, what came of it.';

CREATE VIEW outbox.notification_trouble AS
 SELECT d.id,
    d.tenant_id,
    COALESCE(l.queue, ( SELECT j.queue
           FROM outbox.job j
          WHERE (j.id = d.id))) AS queue,
    d.series,
    d.attempt,
    d.lease_no,
    d.late,
    d.status,
    d.provider,
    d.error_class,
    d.error_code,
    d.error_message,
    d.started_at,
    d.finished_at,
    d.next_attempt_at
   FROM (outbox.delivery d
     LEFT JOIN outbox.lane l ON ((l.lane_id = d.lane_id)))
  WHERE (d.late OR (d.status <> 'SENT'::text));

COMMENT ON VIEW outbox.notification_trouble IS 'One row for each attempt and each end that did not go as it should, or came late: bound id to read its days alone.';

CREATE VIEW outbox.notification_waiting AS
 SELECT j.job_id,
    l.tenant_id,
    j.user_id,
    j.channel,
    l.queue,
    j.template_code,
    j.event_id,
    j.campaign_id,
    j.category,
    outbox.from_priority(e.priority) AS priority,
    outbox.live_status(e.claimed_by, e.available_at, e.waits) AS status,
    outbox.waits_for(e.claimed_by, e.lane_id, l.paused_at, l.held_at, l.scope, e.available_at, e.waits) AS waiting_for,
    outbox.id_time(e.id) AS accepted_at,
    j.send_after,
    e.expires_at,
    e.available_at AS due_at,
    e.series,
    e.attempt AS attempts,
    d.error_code AS last_error_code,
    d.error_message AS last_error,
        CASE
            WHEN (e.claimed_by IS NULL) THEN COALESCE(l.paused_at, l.held_at)
            ELSE NULL::timestamp with time zone
        END AS stopped_at,
        CASE
            WHEN (e.claimed_by IS NULL) THEN l.paused_by
            ELSE NULL::text
        END AS paused_by,
        CASE
            WHEN (e.claimed_by IS NULL) THEN l.hold_code
            ELSE NULL::text
        END AS hold_code,
        CASE
            WHEN (e.claimed_by IS NULL) THEN l.hold_reason
            ELSE NULL::text
        END AS hold_reason,
    e.id
   FROM (((outbox.entry e
     JOIN outbox.lane l ON ((l.lane_id = abs(e.lane_id))))
     CROSS JOIN LATERAL ( SELECT j_1.job_id,
            j_1.user_id,
            j_1.channel,
            j_1.template_code,
            j_1.event_id,
            j_1.campaign_id,
            j_1.category,
            j_1.send_after
           FROM outbox.job j_1
          WHERE (j_1.id = e.id)
         OFFSET 0) j)
     LEFT JOIN LATERAL ( SELECT d_1.error_code,
            d_1.error_message
           FROM outbox.delivery d_1
          WHERE ((d_1.id = e.id) AND (NOT d_1.late))
          ORDER BY d_1.lease_no DESC
         LIMIT 1) d ON (true));

COMMENT ON VIEW outbox.notification_waiting IS 'One row for each job that has not ended.';

ALTER TABLE outbox.operator_action ALTER COLUMN action_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.operator_action_action_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE outbox.ordering (
    ordering_id bigint NOT NULL,
    tenant_id text NOT NULL,
    queue text NOT NULL,
    key_sha256 bytea NOT NULL
);

ALTER TABLE ONLY outbox.ordering FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.ordering_gap (
    ordering_id bigint NOT NULL,
    place bigint NOT NULL,
    dead_id bigint,
    since timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

ALTER TABLE ONLY outbox.ordering_gap FORCE ROW LEVEL SECURITY;

ALTER TABLE outbox.ordering ALTER COLUMN ordering_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.ordering_ordering_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE outbox.outcome_log (
    at timestamp with time zone NOT NULL,
    xid xid8 NOT NULL,
    lane_id integer NOT NULL,
    ids bigint[] NOT NULL,
    lease_nos integer[] NOT NULL
);

ALTER TABLE ONLY outbox.outcome_log FORCE ROW LEVEL SECURITY;

CREATE SEQUENCE outbox.place_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE outbox.producer_tenant (
    role_name text NOT NULL,
    tenant_id text NOT NULL
);

CREATE TABLE outbox.progress (
    id bigint NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    done double precision NOT NULL,
    total double precision NOT NULL,
    lease_no integer NOT NULL,
    tenant_id text NOT NULL,
    note text,
    CONSTRAINT progress_check CHECK (((done >= (0)::double precision) AND (done <= total))),
    CONSTRAINT progress_note_check CHECK ((char_length(note) <= 200)),
    CONSTRAINT progress_total_check CHECK (((total > (0)::double precision) AND (total < 'Infinity'::double precision)))
)
WITH (fillfactor='50', autovacuum_vacuum_threshold='200', autovacuum_vacuum_cost_delay='0');

ALTER TABLE ONLY outbox.progress FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.provider (
    provider_id uuid DEFAULT gen_random_uuid() NOT NULL,
    tenant_id text NOT NULL,
    channel text NOT NULL,
    kind text NOT NULL,
    name text NOT NULL,
    preference smallint DEFAULT 100 NOT NULL,
    config jsonb DEFAULT '{}'::jsonb NOT NULL,
    credentials bytea,
    key_id text,
    enabled boolean DEFAULT true NOT NULL,
    receipts text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT provider_check CHECK (((credentials IS NULL) = (key_id IS NULL))),
    CONSTRAINT provider_name_check CHECK (((char_length(name) >= 1) AND (char_length(name) <= 64))),
    CONSTRAINT provider_receipts_check CHECK ((receipts = ANY (ARRAY['standard'::text, 'twilio'::text, 'sendgrid'::text, 'postmark'::text])))
);

ALTER TABLE ONLY outbox.provider FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.queue_pause (
    queue text NOT NULL,
    paused_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    paused_by text NOT NULL
);

CREATE VIEW outbox.queue_backlog AS
 WITH RECURSIVE place AS (
        ( SELECT e.lane_id,
            e.priority
           FROM outbox.entry e
          WHERE (e.lane_id > 0)
          ORDER BY e.lane_id, e.priority
         LIMIT 1)
        UNION ALL
         SELECT n.lane_id,
            n.priority
           FROM (place p_1
             CROSS JOIN LATERAL ( SELECT e.lane_id,
                    e.priority
                   FROM outbox.entry e
                  WHERE (ROW(e.lane_id, e.priority) > ROW(p_1.lane_id, p_1.priority))
                  ORDER BY e.lane_id, e.priority
                 LIMIT 1) n)
        )
 SELECT l.queue,
    (EXTRACT(epoch FROM (clock_timestamp() - min(d.available_at))))::double precision AS oldest_due_s
   FROM ((place p
     JOIN outbox.lane l ON ((l.lane_id = p.lane_id)))
     CROSS JOIN LATERAL ( SELECT e.available_at
           FROM outbox.entry e
          WHERE ((e.lane_id = p.lane_id) AND (e.priority = p.priority) AND (e.claimed_by IS NULL))
          ORDER BY e.available_at, e.id
         LIMIT 1) d)
  WHERE ((l.paused_at IS NULL) AND (l.held_at IS NULL) AND (l.scope !~ '^destination:'::text) AND (d.available_at <= clock_timestamp()) AND (NOT (EXISTS ( SELECT
           FROM outbox.queue_pause q
          WHERE (q.queue = l.queue)))))
  GROUP BY l.queue;

COMMENT ON VIEW outbox.queue_backlog IS 'For autoscalers: the age of the oldest job that a dispatcher could take now, by queue.';

CREATE VIEW outbox.queue_now WITH (security_invoker='true') AS
 SELECT l.queue,
    l.tenant_id,
    count(*) FILTER (WHERE ((e.claimed_by IS NULL) AND (e.available_at <= clock_timestamp()))) AS waiting,
    count(*) FILTER (WHERE (e.claimed_by IS NOT NULL)) AS active,
    count(*) FILTER (WHERE ((e.claimed_by IS NULL) AND (e.available_at > clock_timestamp()))) AS delayed,
    min(e.available_at) FILTER (WHERE ((e.claimed_by IS NULL) AND (e.lane_id > 0) AND (e.available_at <= clock_timestamp()))) AS oldest_waiting_at
   FROM (outbox.entry e
     JOIN outbox.lane l ON ((l.lane_id = abs(e.lane_id))))
  WHERE ((l.scope <> 'test'::text) AND (NOT starts_with(l.scope, 'test:'::text)))
  GROUP BY l.queue, l.tenant_id;

CREATE TABLE outbox.receipt_expected (
    id bigint NOT NULL,
    tenant_id text NOT NULL,
    provider_id uuid NOT NULL,
    provider_message_id text,
    expected_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    told boolean DEFAULT false NOT NULL
);

ALTER TABLE ONLY outbox.receipt_expected FORCE ROW LEVEL SECURITY;

ALTER TABLE outbox.receipt ALTER COLUMN receipt_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.receipt_receipt_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE outbox.recipient (
    tenant_id text NOT NULL,
    user_id text NOT NULL,
    email text,
    phone text,
    telegram_chat_id text,
    locale text,
    timezone text,
    attributes jsonb DEFAULT '{}'::jsonb NOT NULL,
    opt_outs text[] DEFAULT '{}'::text[] NOT NULL,
    quiet_hours jsonb,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT recipient_user_id_check CHECK (((char_length(user_id) >= 1) AND (char_length(user_id) <= 128)))
);

ALTER TABLE ONLY outbox.recipient FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.replay_run (
    run_id uuid NOT NULL,
    tenant_id text NOT NULL,
    filter jsonb NOT NULL,
    rate_per_s double precision,
    jobs_max integer,
    state text DEFAULT 'running'::text NOT NULL,
    plan jsonb NOT NULL,
    newest bigint NOT NULL,
    reached bigint DEFAULT 0 NOT NULL,
    tokens double precision DEFAULT 1 NOT NULL,
    stepped_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    replayed integer DEFAULT 0 NOT NULL,
    expired integer DEFAULT 0 NOT NULL,
    duplicate integer DEFAULT 0 NOT NULL,
    suppressed integer DEFAULT 0 NOT NULL,
    gone integer DEFAULT 0 NOT NULL,
    begun_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    begun_by text NOT NULL,
    reason text,
    ended_at timestamp with time zone,
    stopped_by text,
    CONSTRAINT replay_run_jobs_max_check CHECK ((jobs_max > 0)),
    CONSTRAINT replay_run_rate_per_s_check CHECK (((rate_per_s >= (0.001)::double precision) AND (rate_per_s <= (100000)::double precision))),
    CONSTRAINT replay_run_state_check CHECK ((state = ANY (ARRAY['running'::text, 'done'::text, 'stopped'::text])))
);

ALTER TABLE ONLY outbox.replay_run FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.retiring (
    day date NOT NULL,
    detached_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    pruned_to bigint DEFAULT 0 NOT NULL
);

CREATE TABLE outbox.rule (
    rule_id uuid DEFAULT gen_random_uuid() NOT NULL,
    tenant_id text NOT NULL,
    name text NOT NULL,
    event_type text NOT NULL,
    condition jsonb,
    template_code text NOT NULL,
    channels text[] NOT NULL,
    delay_s integer DEFAULT 0 NOT NULL,
    expires_after_s integer,
    priority text DEFAULT 'normal'::text NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT rule_channels_check CHECK (((cardinality(channels) >= 1) AND (cardinality(channels) <= 10))),
    CONSTRAINT rule_delay_s_check CHECK ((delay_s >= 0)),
    CONSTRAINT rule_expires_after_s_check CHECK ((expires_after_s > 0))
);

ALTER TABLE ONLY outbox.rule FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.schedule (
    schedule_id uuid DEFAULT gen_random_uuid() NOT NULL,
    tenant_id text NOT NULL,
    name text NOT NULL,
    trigger jsonb NOT NULL,
    timezone text DEFAULT 'UTC'::text NOT NULL,
    job jsonb,
    clean jsonb,
    expires_after_s integer,
    misfire text DEFAULT 'once'::text NOT NULL,
    misfire_grace_s integer DEFAULT 60 NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    next_at timestamp with time zone,
    fired_at timestamp with time zone,
    last_job_id uuid,
    last_error text,
    last_error_at timestamp with time zone,
    fires bigint DEFAULT 0 NOT NULL,
    missed bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_by text NOT NULL,
    CONSTRAINT schedule_check CHECK (((job IS NULL) <> (clean IS NULL))),
    CONSTRAINT schedule_expires_after_s_check CHECK ((expires_after_s > 0)),
    CONSTRAINT schedule_misfire_check CHECK ((misfire = ANY (ARRAY['skip'::text, 'once'::text, 'all'::text]))),
    CONSTRAINT schedule_misfire_grace_s_check CHECK ((misfire_grace_s >= 1)),
    CONSTRAINT schedule_name_check CHECK (((char_length(name) >= 1) AND (char_length(name) <= 128)))
);

ALTER TABLE ONLY outbox.schedule FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.sink_message (
    message_id bigint NOT NULL,
    tenant_id text NOT NULL,
    caught_by text NOT NULL,
    channel text NOT NULL,
    job_id uuid,
    recipient text,
    subject text,
    body text NOT NULL,
    headers jsonb DEFAULT '{}'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    test boolean DEFAULT (NOT (current_setting('outbox.mode'::text, true) IS DISTINCT FROM 'test'::text)) NOT NULL,
    CONSTRAINT sink_message_caught_by_check CHECK ((caught_by = ANY (ARRAY['sink'::text, 'smtp'::text, 'http'::text])))
);

ALTER TABLE ONLY outbox.sink_message FORCE ROW LEVEL SECURITY;

ALTER TABLE outbox.sink_message ALTER COLUMN message_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.sink_message_message_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE outbox.socket (
    tenant_id text NOT NULL,
    user_id text NOT NULL,
    process_id bigint NOT NULL
);

ALTER TABLE ONLY outbox.socket FORCE ROW LEVEL SECURITY;

CREATE UNLOGGED TABLE outbox.socket_message (
    message_id bigint NOT NULL,
    attempt_id uuid NOT NULL,
    job_id uuid NOT NULL,
    process_id bigint NOT NULL,
    tenant_id text NOT NULL,
    user_id text NOT NULL,
    body text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    handed_at timestamp with time zone,
    taken_at timestamp with time zone
);

ALTER TABLE ONLY outbox.socket_message FORCE ROW LEVEL SECURITY;

ALTER TABLE outbox.socket_message ALTER COLUMN message_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.socket_message_message_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE outbox.stat_quarter (
    at timestamp with time zone NOT NULL,
    lane_id integer NOT NULL,
    sent bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    retrying bigint DEFAULT 0 NOT NULL,
    expired bigint DEFAULT 0 NOT NULL,
    cancelled bigint DEFAULT 0 NOT NULL,
    rescued bigint DEFAULT 0 NOT NULL,
    late bigint DEFAULT 0 NOT NULL,
    durations integer[],
    pickups integer[],
    arrivals integer[]
);

ALTER TABLE ONLY outbox.stat_quarter FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.stat_total (
    lane_id integer NOT NULL,
    sent bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    retrying bigint DEFAULT 0 NOT NULL,
    expired bigint DEFAULT 0 NOT NULL,
    cancelled bigint DEFAULT 0 NOT NULL,
    rescued bigint DEFAULT 0 NOT NULL,
    late bigint DEFAULT 0 NOT NULL,
    duration_ms_sum bigint DEFAULT 0 NOT NULL,
    pickup_ms_sum bigint DEFAULT 0 NOT NULL,
    durations bigint[],
    pickups bigint[],
    attempts jsonb
);

ALTER TABLE ONLY outbox.stat_total FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.suppression (
    tenant_id text NOT NULL,
    channel text NOT NULL,
    address text NOT NULL,
    code text NOT NULL,
    reason text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    expires_at timestamp with time zone
);

ALTER TABLE ONLY outbox.suppression FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.template (
    tenant_id text NOT NULL,
    code text NOT NULL,
    channel text NOT NULL,
    locale text NOT NULL,
    version integer NOT NULL,
    subject text,
    body_text text,
    body_html text,
    schema jsonb,
    keep_content text DEFAULT 'hash'::text NOT NULL,
    on_ambiguous text DEFAULT 'resend'::text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    created_by text,
    deleted_at timestamp with time zone,
    CONSTRAINT template_code_check CHECK (((char_length(code) >= 1) AND (char_length(code) <= 128))),
    CONSTRAINT template_keep_content_check CHECK ((keep_content = ANY (ARRAY['none'::text, 'hash'::text, 'full'::text]))),
    CONSTRAINT template_on_ambiguous_check CHECK ((on_ambiguous = ANY (ARRAY['resend'::text, 'hold'::text, 'fail'::text])))
);

ALTER TABLE ONLY outbox.template FORCE ROW LEVEL SECURITY;

CREATE TABLE outbox.tenant (
    tenant_id text NOT NULL,
    default_locale text,
    timezone text,
    sender text,
    phone_region text,
    own_providers boolean DEFAULT false NOT NULL,
    send_windows jsonb DEFAULT '{}'::jsonb NOT NULL,
    error_rules jsonb DEFAULT '[]'::jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT tenant_phone_region_check CHECK ((phone_region ~ '^[A-Z]{2}$'::text)),
    CONSTRAINT tenant_tenant_id_check CHECK (((char_length(tenant_id) >= 1) AND (char_length(tenant_id) <= 128)))
);

ALTER TABLE ONLY outbox.tenant FORCE ROW LEVEL SECURITY;

ALTER TABLE ONLY outbox.job_key ATTACH PARTITION outbox.job_key_0 FOR VALUES WITH (modulus 8, remainder 0);

ALTER TABLE ONLY outbox.job_key ATTACH PARTITION outbox.job_key_1 FOR VALUES WITH (modulus 8, remainder 1);

ALTER TABLE ONLY outbox.job_key ATTACH PARTITION outbox.job_key_2 FOR VALUES WITH (modulus 8, remainder 2);

ALTER TABLE ONLY outbox.job_key ATTACH PARTITION outbox.job_key_3 FOR VALUES WITH (modulus 8, remainder 3);

ALTER TABLE ONLY outbox.job_key ATTACH PARTITION outbox.job_key_4 FOR VALUES WITH (modulus 8, remainder 4);

ALTER TABLE ONLY outbox.job_key ATTACH PARTITION outbox.job_key_5 FOR VALUES WITH (modulus 8, remainder 5);

ALTER TABLE ONLY outbox.job_key ATTACH PARTITION outbox.job_key_6 FOR VALUES WITH (modulus 8, remainder 6);

ALTER TABLE ONLY outbox.job_key ATTACH PARTITION outbox.job_key_7 FOR VALUES WITH (modulus 8, remainder 7);

ALTER TABLE ONLY outbox.alert
    ADD CONSTRAINT alert_pkey PRIMARY KEY (alert_id);

ALTER TABLE ONLY outbox.alert_round
    ADD CONSTRAINT alert_round_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY outbox.api_key
    ADD CONSTRAINT api_key_key_sha256_key UNIQUE (key_sha256);

ALTER TABLE ONLY outbox.api_key
    ADD CONSTRAINT api_key_pkey PRIMARY KEY (key_id);

ALTER TABLE ONLY outbox.api_process
    ADD CONSTRAINT api_process_pkey PRIMARY KEY (process_id);

ALTER TABLE ONLY outbox.bucket
    ADD CONSTRAINT bucket_pkey PRIMARY KEY (name);

ALTER TABLE ONLY outbox.chore
    ADD CONSTRAINT chore_pkey PRIMARY KEY (chore);

ALTER TABLE ONLY outbox.control
    ADD CONSTRAINT control_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY outbox.dead_letter
    ADD CONSTRAINT dead_letter_pkey PRIMARY KEY (dead_letter_id);

ALTER TABLE ONLY outbox.dedup_alias
    ADD CONSTRAINT dedup_alias_pkey PRIMARY KEY (id, tenant_id, job_id);

ALTER TABLE ONLY outbox.dedup
    ADD CONSTRAINT dedup_pkey PRIMARY KEY (key_sha256);

ALTER TABLE ONLY outbox.destination_health
    ADD CONSTRAINT destination_health_pkey PRIMARY KEY (name, epoch);

ALTER TABLE ONLY outbox.destination
    ADD CONSTRAINT destination_pkey PRIMARY KEY (name);

ALTER TABLE ONLY outbox.device
    ADD CONSTRAINT device_pkey PRIMARY KEY (device_id);

ALTER TABLE ONLY outbox.dispatcher
    ADD CONSTRAINT dispatcher_pkey PRIMARY KEY (epoch);

ALTER TABLE ONLY outbox.endpoint
    ADD CONSTRAINT endpoint_pkey PRIMARY KEY (endpoint_id);

ALTER TABLE ONLY outbox.entry
    ADD CONSTRAINT entry_pkey PRIMARY KEY (id);

ALTER TABLE ONLY outbox.event
    ADD CONSTRAINT event_pkey PRIMARY KEY (tenant_id, event_id);

ALTER TABLE ONLY outbox.handler
    ADD CONSTRAINT handler_pkey PRIMARY KEY (kind, name);

ALTER TABLE ONLY outbox.inbox_message
    ADD CONSTRAINT inbox_message_id_series_key UNIQUE (id, series);

ALTER TABLE ONLY outbox.inbox_message
    ADD CONSTRAINT inbox_message_pkey PRIMARY KEY (message_id);

ALTER TABLE ONLY outbox.job_key
    ADD CONSTRAINT job_key_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY outbox.job_key_0
    ADD CONSTRAINT job_key_0_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY outbox.job_key_1
    ADD CONSTRAINT job_key_1_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY outbox.job_key_2
    ADD CONSTRAINT job_key_2_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY outbox.job_key_3
    ADD CONSTRAINT job_key_3_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY outbox.job_key_4
    ADD CONSTRAINT job_key_4_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY outbox.job_key_5
    ADD CONSTRAINT job_key_5_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY outbox.job_key_6
    ADD CONSTRAINT job_key_6_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY outbox.job_key_7
    ADD CONSTRAINT job_key_7_pkey PRIMARY KEY (tenant_id, job_id);

ALTER TABLE ONLY outbox.job
    ADD CONSTRAINT job_pkey PRIMARY KEY (id);

ALTER TABLE ONLY outbox.known_error_code
    ADD CONSTRAINT known_error_code_pkey PRIMARY KEY (code);

ALTER TABLE ONLY outbox.lane
    ADD CONSTRAINT lane_pkey PRIMARY KEY (lane_id);

ALTER TABLE ONLY outbox.lane_share
    ADD CONSTRAINT lane_share_pkey PRIMARY KEY (lane_id, epoch);

ALTER TABLE ONLY outbox.lane
    ADD CONSTRAINT lane_tenant_id_queue_scope_key UNIQUE (tenant_id, queue, scope);

ALTER TABLE ONLY outbox.operator_action
    ADD CONSTRAINT operator_action_pkey PRIMARY KEY (action_id);

ALTER TABLE ONLY outbox.ordering_gap
    ADD CONSTRAINT ordering_gap_pkey PRIMARY KEY (ordering_id);

ALTER TABLE ONLY outbox.ordering
    ADD CONSTRAINT ordering_key_sha256_key UNIQUE (key_sha256);

ALTER TABLE ONLY outbox.ordering
    ADD CONSTRAINT ordering_pkey PRIMARY KEY (ordering_id);

ALTER TABLE ONLY outbox.producer_tenant
    ADD CONSTRAINT producer_tenant_pkey PRIMARY KEY (role_name, tenant_id);

ALTER TABLE ONLY outbox.progress
    ADD CONSTRAINT progress_pkey PRIMARY KEY (id);

ALTER TABLE ONLY outbox.provider
    ADD CONSTRAINT provider_pkey PRIMARY KEY (provider_id);

ALTER TABLE ONLY outbox.provider
    ADD CONSTRAINT provider_tenant_id_channel_name_key UNIQUE (tenant_id, channel, name);

ALTER TABLE ONLY outbox.queue_pause
    ADD CONSTRAINT queue_pause_pkey PRIMARY KEY (queue);

ALTER TABLE ONLY outbox.receipt_expected
    ADD CONSTRAINT receipt_expected_pkey PRIMARY KEY (id);

ALTER TABLE ONLY outbox.receipt
    ADD CONSTRAINT receipt_pkey PRIMARY KEY (receipt_id);

ALTER TABLE ONLY outbox.recipient
    ADD CONSTRAINT recipient_pkey PRIMARY KEY (tenant_id, user_id);

ALTER TABLE ONLY outbox.replay_run
    ADD CONSTRAINT replay_run_pkey PRIMARY KEY (run_id);

ALTER TABLE ONLY outbox.retiring
    ADD CONSTRAINT retiring_pkey PRIMARY KEY (day);

ALTER TABLE ONLY outbox.rule
    ADD CONSTRAINT rule_pkey PRIMARY KEY (rule_id);

ALTER TABLE ONLY outbox.schedule
    ADD CONSTRAINT schedule_pkey PRIMARY KEY (schedule_id);

ALTER TABLE ONLY outbox.schedule
    ADD CONSTRAINT schedule_tenant_id_name_key UNIQUE (tenant_id, name);

ALTER TABLE ONLY outbox.setting
    ADD CONSTRAINT setting_pkey PRIMARY KEY (only_row);

ALTER TABLE ONLY outbox.sink_message
    ADD CONSTRAINT sink_message_pkey PRIMARY KEY (message_id);

ALTER TABLE ONLY outbox.socket_message
    ADD CONSTRAINT socket_message_pkey PRIMARY KEY (message_id);

ALTER TABLE ONLY outbox.socket
    ADD CONSTRAINT socket_pkey PRIMARY KEY (tenant_id, user_id, process_id);

ALTER TABLE ONLY outbox.stat_hour
    ADD CONSTRAINT stat_hour_pkey PRIMARY KEY (at, lane_id);

ALTER TABLE ONLY outbox.stat_quarter
    ADD CONSTRAINT stat_quarter_pkey PRIMARY KEY (at, lane_id);

ALTER TABLE ONLY outbox.stat_total
    ADD CONSTRAINT stat_total_pkey PRIMARY KEY (lane_id);

ALTER TABLE ONLY outbox.suppression
    ADD CONSTRAINT suppression_pkey PRIMARY KEY (tenant_id, channel, address);

ALTER TABLE ONLY outbox.template
    ADD CONSTRAINT template_pkey PRIMARY KEY (tenant_id, code, channel, locale, version);

ALTER TABLE ONLY outbox.tenant
    ADD CONSTRAINT tenant_pkey PRIMARY KEY (tenant_id);

CREATE UNIQUE INDEX alert_live ON outbox.alert USING btree (rule, subject) WHERE (state <> 'closed'::text);

CREATE INDEX dead_letter_job ON outbox.dead_letter USING btree (id) WHERE (id IS NOT NULL);

CREATE INDEX dead_letter_newest ON outbox.dead_letter USING btree (tenant_id, dead_letter_id);

CREATE INDEX dead_letter_open ON outbox.dead_letter USING btree (queue, reason, tenant_id) WHERE (replayed_at IS NULL);

CREATE INDEX dedup_until ON outbox.dedup USING btree (until);

CREATE UNIQUE INDEX delivery_end ON ONLY outbox.delivery USING btree (id, series) WHERE (terminal AND (NOT late));

CREATE UNIQUE INDEX delivery_lease ON ONLY outbox.delivery USING btree (id, lease_no, late);

CREATE INDEX delivery_recipient ON ONLY outbox.delivery USING btree (recipient_hash, id) WHERE (recipient_hash IS NOT NULL);

CREATE INDEX delivery_trouble ON ONLY outbox.delivery USING btree (status, id) WHERE (late OR (status <> 'SENT'::text));

CREATE UNIQUE INDEX device_address ON outbox.device USING btree (tenant_id, channel, address);

CREATE INDEX device_user ON outbox.device USING btree (tenant_id, user_id, channel, seen_at);

CREATE INDEX endpoint_tenant ON outbox.endpoint USING btree (tenant_id, endpoint_id);

CREATE INDEX entry_claim ON outbox.entry USING btree (lane_id, priority, available_at, id);

CREATE INDEX entry_expiry ON outbox.entry USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX entry_order ON outbox.entry USING btree (ordering_id, place) WHERE (ordering_id IS NOT NULL);

CREATE INDEX event_accepted ON outbox.event USING btree (accepted_at);

CREATE INDEX inbox_message_user ON outbox.inbox_message USING btree (tenant_id, user_id, message_id);

CREATE INDEX job_campaign ON ONLY outbox.job USING btree (campaign_id) WHERE (campaign_id IS NOT NULL);

CREATE INDEX job_event ON ONLY outbox.job USING btree (event_id) WHERE (event_id IS NOT NULL);

CREATE INDEX job_list ON ONLY outbox.job USING btree (list_job_id) WHERE (list_job_id IS NOT NULL);

CREATE INDEX job_user ON ONLY outbox.job USING btree (user_id, tenant_id, id) WHERE (user_id IS NOT NULL);

CREATE INDEX lane_held ON outbox.lane USING btree (probe_at) WHERE (held_at IS NOT NULL);

CREATE INDEX operator_action_job ON outbox.operator_action USING btree (id) WHERE (id IS NOT NULL);

CREATE INDEX operator_action_series ON outbox.operator_action USING btree (at) WHERE (action = ANY (ARRAY['retry'::text, 'replay'::text]));

CREATE INDEX ordering_gap_dead ON outbox.ordering_gap USING btree (dead_id) WHERE (dead_id IS NOT NULL);

CREATE INDEX outcome_log_at ON outbox.outcome_log USING btree (at);

CREATE INDEX progress_at ON outbox.progress USING btree (at);

CREATE INDEX receipt_expected_message ON outbox.receipt_expected USING btree (provider_id, provider_message_id);

CREATE INDEX receipt_expected_untold ON outbox.receipt_expected USING btree (expected_at) WHERE (NOT told);

CREATE UNIQUE INDEX receipt_job ON outbox.receipt USING btree (id, status);

CREATE INDEX replay_run_newest ON outbox.replay_run USING btree (begun_at, run_id);

CREATE INDEX replay_run_running ON outbox.replay_run USING btree (stepped_at) WHERE (state = 'running'::text);

CREATE INDEX rule_event ON outbox.rule USING btree (tenant_id, event_type) WHERE enabled;

CREATE INDEX schedule_next ON outbox.schedule USING btree (next_at) WHERE (enabled AND (next_at IS NOT NULL));

CREATE INDEX socket_message_attempt ON outbox.socket_message USING btree (attempt_id);

CREATE INDEX socket_message_process ON outbox.socket_message USING btree (process_id, message_id);

CREATE INDEX socket_process ON outbox.socket USING btree (process_id);

CREATE INDEX stat_second_at ON outbox.stat_second USING btree (at);

CREATE INDEX suppression_erased ON outbox.suppression USING btree (tenant_id) WHERE starts_with(address, 'erased:'::text);

ALTER INDEX outbox.job_key_pkey ATTACH PARTITION outbox.job_key_0_pkey;

ALTER INDEX outbox.job_key_pkey ATTACH PARTITION outbox.job_key_1_pkey;

ALTER INDEX outbox.job_key_pkey ATTACH PARTITION outbox.job_key_2_pkey;

ALTER INDEX outbox.job_key_pkey ATTACH PARTITION outbox.job_key_3_pkey;

ALTER INDEX outbox.job_key_pkey ATTACH PARTITION outbox.job_key_4_pkey;

ALTER INDEX outbox.job_key_pkey ATTACH PARTITION outbox.job_key_5_pkey;

ALTER INDEX outbox.job_key_pkey ATTACH PARTITION outbox.job_key_6_pkey;

ALTER INDEX outbox.job_key_pkey ATTACH PARTITION outbox.job_key_7_pkey;

CREATE TRIGGER catalog_changed AFTER DELETE OR UPDATE ON outbox.endpoint FOR EACH STATEMENT EXECUTE FUNCTION outbox.catalog_changed();

CREATE TRIGGER catalog_changed AFTER INSERT OR DELETE OR UPDATE ON outbox.provider FOR EACH STATEMENT EXECUTE FUNCTION outbox.catalog_changed();

CREATE TRIGGER catalog_changed AFTER DELETE OR UPDATE ON outbox.tenant FOR EACH STATEMENT EXECUTE FUNCTION outbox.catalog_changed();

CREATE TRIGGER fill_in BEFORE INSERT ON outbox.operator_action FOR EACH ROW EXECUTE FUNCTION outbox.fill_in_action();

CREATE TRIGGER head_ended AFTER DELETE ON outbox.entry FOR EACH ROW WHEN (((old.ordering_id IS NOT NULL) AND (old.lane_id > 0))) EXECUTE FUNCTION outbox.head_ended();

CREATE TRIGGER make_lanes AFTER INSERT ON outbox.handler FOR EACH STATEMENT EXECUTE FUNCTION outbox.make_lanes();

CREATE TRIGGER make_lanes AFTER INSERT ON outbox.tenant FOR EACH STATEMENT EXECUTE FUNCTION outbox.make_lanes();

CREATE TRIGGER note_change AFTER UPDATE OF acknowledged_at ON outbox.alert FOR EACH ROW EXECUTE FUNCTION outbox.note_change();

CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE ON outbox.api_key FOR EACH ROW EXECUTE FUNCTION outbox.note_change();

CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE ON outbox.device FOR EACH ROW WHEN ((current_setting('outbox.tenant'::text, true) <> ''::text)) EXECUTE FUNCTION outbox.note_change();

CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE ON outbox.endpoint FOR EACH ROW EXECUTE FUNCTION outbox.note_change();

CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE ON outbox.provider FOR EACH ROW EXECUTE FUNCTION outbox.note_change();

CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE ON outbox.recipient FOR EACH ROW WHEN ((current_setting('outbox.tenant'::text, true) <> ''::text)) EXECUTE FUNCTION outbox.note_change();

CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE ON outbox.rule FOR EACH ROW EXECUTE FUNCTION outbox.note_change();

CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE ON outbox.schedule FOR EACH ROW EXECUTE FUNCTION outbox.note_change();

CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE ON outbox.suppression FOR EACH ROW WHEN ((current_setting('outbox.tenant'::text, true) <> ''::text)) EXECUTE FUNCTION outbox.note_change();

CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE ON outbox.template FOR EACH ROW EXECUTE FUNCTION outbox.note_change();

CREATE TRIGGER note_change AFTER INSERT OR DELETE OR UPDATE ON outbox.tenant FOR EACH ROW EXECUTE FUNCTION outbox.note_change();

ALTER TABLE outbox.alert ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.alert_round ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.api_key ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.api_process ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.dead_letter ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.dedup ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.dedup_alias ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.delivery ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.device ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.endpoint ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.entry ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.event ENABLE ROW LEVEL SECURITY;

CREATE POLICY everything ON outbox.alert TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.alert_round TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.api_key TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.api_process TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.dead_letter TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.dedup TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.dedup_alias TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.delivery TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.device TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.endpoint TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.entry TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.event TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.inbox_message TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.job TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.job_key TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.known_error_code TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.lane TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.operator_action TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.ordering TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.ordering_gap TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.outcome_log TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.progress TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.provider TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.receipt TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.receipt_expected TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.recipient TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.replay_run TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.rule TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.schedule TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.sink_message TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.socket TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.socket_message TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.stat_hour TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.stat_quarter TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.stat_second TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.stat_total TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.suppression TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.template TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

CREATE POLICY everything ON outbox.tenant TO outbox_owner, outbox_dispatcher USING (true) WITH CHECK (true);

ALTER TABLE outbox.inbox_message ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.job ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.job_key ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.known_error_code ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.lane ENABLE ROW LEVEL SECURITY;

CREATE POLICY of_the_service ON outbox.api_process TO outbox_api USING (outbox.sees('*'::text)) WITH CHECK (outbox.sees('*'::text));

ALTER TABLE outbox.operator_action ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.ordering ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.ordering_gap ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.outcome_log ENABLE ROW LEVEL SECURITY;

CREATE POLICY own_tenant ON outbox.api_key TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.dead_letter TO outbox_api USING (((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id)) AND ((current_setting('outbox.mode'::text, true) IS DISTINCT FROM 'test'::text) OR outbox.sees_job(id)))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.dedup TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.dedup_alias TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.delivery TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.device TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.endpoint TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.entry TO outbox_api USING ((EXISTS ( SELECT
   FROM outbox.lane l
  WHERE (l.lane_id = abs(entry.lane_id)))));

CREATE POLICY own_tenant ON outbox.event TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.inbox_message TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.job TO outbox_api USING (((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id)) AND (test OR (current_setting('outbox.mode'::text, true) IS DISTINCT FROM 'test'::text)))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.job_key TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.lane TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.operator_action TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.ordering TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.ordering_gap TO outbox_api USING ((EXISTS ( SELECT
   FROM outbox.ordering o
  WHERE (o.ordering_id = ordering_gap.ordering_id))));

CREATE POLICY own_tenant ON outbox.outcome_log TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR (EXISTS ( SELECT
   FROM outbox.lane l
  WHERE (l.lane_id = outcome_log.lane_id)))));

CREATE POLICY own_tenant ON outbox.progress TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.provider TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.receipt TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.receipt_expected TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.recipient TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.replay_run TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.rule TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.schedule TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.sink_message TO outbox_api USING (((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id)) AND (test OR (current_setting('outbox.mode'::text, true) IS DISTINCT FROM 'test'::text)))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.socket TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.socket_message TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.stat_hour TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR (EXISTS ( SELECT
   FROM outbox.lane l
  WHERE (l.lane_id = stat_hour.lane_id)))));

CREATE POLICY own_tenant ON outbox.stat_quarter TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR (EXISTS ( SELECT
   FROM outbox.lane l
  WHERE (l.lane_id = stat_quarter.lane_id)))));

CREATE POLICY own_tenant ON outbox.stat_second TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR (EXISTS ( SELECT
   FROM outbox.lane l
  WHERE (l.lane_id = stat_second.lane_id)))));

CREATE POLICY own_tenant ON outbox.stat_total TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR (EXISTS ( SELECT
   FROM outbox.lane l
  WHERE (l.lane_id = stat_total.lane_id)))));

CREATE POLICY own_tenant ON outbox.suppression TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.template TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

CREATE POLICY own_tenant ON outbox.tenant TO outbox_api USING ((( SELECT outbox.sees('*'::text) AS sees) OR outbox.sees(tenant_id))) WITH CHECK (outbox.sees(tenant_id));

ALTER TABLE outbox.progress ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.provider ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.receipt ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.receipt_expected ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.recipient ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.replay_run ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.rule ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.schedule ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.sink_message ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.socket ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.socket_message ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.stat_hour ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.stat_quarter ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.stat_second ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.stat_total ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.suppression ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.template ENABLE ROW LEVEL SECURITY;

ALTER TABLE outbox.tenant ENABLE ROW LEVEL SECURITY;

CREATE POLICY whole_service ON outbox.alert TO outbox_api USING (outbox.sees('*'::text)) WITH CHECK (outbox.sees('*'::text));

CREATE POLICY whole_service ON outbox.alert_round TO outbox_api USING (outbox.sees('*'::text)) WITH CHECK (outbox.sees('*'::text));

CREATE POLICY whole_service ON outbox.known_error_code TO outbox_api USING (outbox.sees('*'::text)) WITH CHECK (outbox.sees('*'::text));

GRANT USAGE ON SCHEMA outbox TO outbox_producer;
GRANT USAGE ON SCHEMA outbox TO outbox_api;
GRANT USAGE ON SCHEMA outbox TO outbox_dispatcher;
GRANT USAGE ON SCHEMA outbox TO outbox_auditor;
GRANT USAGE ON SCHEMA outbox TO outbox_scaler;

REVOKE ALL ON FUNCTION outbox.accepted_status(send_after timestamp with time zone, expires_at timestamp with time zone, at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.accepted_status(send_after timestamp with time zone, expires_at timestamp with time zone, at timestamp with time zone) TO outbox_auditor;
GRANT ALL ON FUNCTION outbox.accepted_status(send_after timestamp with time zone, expires_at timestamp with time zone, at timestamp with time zone) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.accepted_status(send_after timestamp with time zone, expires_at timestamp with time zone, at timestamp with time zone) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.acts_for(tenant text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.acts_for(tenant text) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.add_counts(a bigint[], b bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.add_counts(a bigint[], b bigint[]) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.add_faults(parsed outbox.parsed[], unhandled text[], unknown_templates text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.add_faults(parsed outbox.parsed[], unhandled text[], unknown_templates text[]) TO outbox_dispatcher;

GRANT SELECT ON TABLE outbox.setting TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.setting TO outbox_api;

REVOKE ALL ON FUNCTION outbox.address_hash(address text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.address_hash(address text) TO outbox_auditor;
GRANT ALL ON FUNCTION outbox.address_hash(address text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.address_hash(address text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.address_user(channel text, address text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.address_user(channel text, address text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.address_user(channel text, address text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.analyze_parents(now timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.analyze_parents(now timestamp with time zone) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.arrival_bounds_s() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.arrival_bounds_s() TO outbox_auditor;
GRANT ALL ON FUNCTION outbox.arrival_bounds_s() TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.pointer(key text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.pointer(key text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.pointer(key text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.attachment_faults(item jsonb, at text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.attachment_faults(item jsonb, at text) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.attachments_faults(attachments jsonb, channel text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.attachments_faults(attachments jsonb, channel text) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.authenticate(hash bytea) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.authenticate(hash bytea) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.authenticate(hash bytea) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.begin_replay(wanted uuid, for_tenant text, filter jsonb, rate_per_s double precision, jobs_max integer, plan jsonb, actor text, reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.begin_replay(wanted uuid, for_tenant text, filter jsonb, rate_per_s double precision, jobs_max integer, plan jsonb, actor text, reason text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.begin_replay(wanted uuid, for_tenant text, filter jsonb, rate_per_s double precision, jobs_max integer, plan jsonb, actor text, reason text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.caller() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.caller() TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.cancel_jobs(ids bigint[], actor text, reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.cancel_jobs(ids bigint[], actor text, reason text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.cancel_jobs(ids bigint[], actor text, reason text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.catalog_changed() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.catalog_changed() TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.check_batch(jobs jsonb[], tenant text, on_conflict text, on_fault text, jobs_max integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.check_batch(jobs jsonb[], tenant text, on_conflict text, on_fault text, jobs_max integer) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.check_limits(weight integer, concurrency_max integer, rate_per_s double precision, burst integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.check_limits(weight integer, concurrency_max integer, rate_per_s double precision, burst integer) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.clean_jobs(for_queue text, for_tenant text, of_status text, older_than_s double precision, jobs_max integer, actor text, keep_last integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.clean_jobs(for_queue text, for_tenant text, of_status text, older_than_s double precision, jobs_max integer, actor text, keep_last integer) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.clean_jobs(for_queue text, for_tenant text, of_status text, older_than_s double precision, jobs_max integer, actor text, keep_last integer) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.close_gaps(gaps_max integer, hold_max_s double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.close_gaps(gaps_max integer, hold_max_s double precision) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.compare_keys(parsed outbox.parsed[], at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.compare_keys(parsed outbox.parsed[], at timestamp with time zone) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.current_status(job bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.current_status(job bigint) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.current_status(job bigint) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.days_of(parent regclass) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.days_of(parent regclass) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.days_of(parent regclass) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.deduplicate(parsed outbox.parsed[], compared outbox.compared[], at timestamp with time zone, address_key bytea) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.deduplicate(parsed outbox.parsed[], compared outbox.compared[], at timestamp with time zone, address_key bytea) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.depth_faults(job jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.depth_faults(job jsonb) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.destinations_changed() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.destinations_changed() TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.differing(one jsonb, other jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.differing(one jsonb, other jsonb) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.differing(one jsonb, other jsonb) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.drop_keys(compared outbox.compared[], refused integer[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.drop_keys(compared outbox.compared[], refused integer[]) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.end_hold(held integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.end_hold(held integer) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.ended_status(status text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.ended_status(status text) TO outbox_auditor;
GRANT ALL ON FUNCTION outbox.ended_status(status text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.ended_status(status text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.is_uuid(value text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.is_uuid(value text) TO outbox_dispatcher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.endpoint TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.endpoint TO outbox_api;

REVOKE ALL ON FUNCTION outbox.endpoint_fault(job jsonb, channel text, tenant text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.endpoint_fault(job jsonb, channel text, tenant text) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.enqueue(job jsonb, tenant text, notify boolean, on_conflict text, OUT job_id uuid, OUT status text, OUT duplicate boolean, OUT job_ids uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.enqueue(job jsonb, tenant text, notify boolean, on_conflict text, OUT job_id uuid, OUT status text, OUT duplicate boolean, OUT job_ids uuid[]) TO outbox_producer;
GRANT ALL ON FUNCTION outbox.enqueue(job jsonb, tenant text, notify boolean, on_conflict text, OUT job_id uuid, OUT status text, OUT duplicate boolean, OUT job_ids uuid[]) TO outbox_api;
GRANT ALL ON FUNCTION outbox.enqueue(job jsonb, tenant text, notify boolean, on_conflict text, OUT job_id uuid, OUT status text, OUT duplicate boolean, OUT job_ids uuid[]) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.enqueue_any(jobs jsonb[], tenant text, on_conflict text, on_fault text, fill_created boolean, notify boolean, at timestamp with time zone, traceparents text[], resend_of uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.enqueue_any(jobs jsonb[], tenant text, on_conflict text, on_fault text, fill_created boolean, notify boolean, at timestamp with time zone, traceparents text[], resend_of uuid) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.enqueue_many(jobs jsonb[], tenant text, notify boolean, on_conflict text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.enqueue_many(jobs jsonb[], tenant text, notify boolean, on_conflict text) TO outbox_producer;
GRANT ALL ON FUNCTION outbox.enqueue_many(jobs jsonb[], tenant text, notify boolean, on_conflict text) TO outbox_api;
GRANT ALL ON FUNCTION outbox.enqueue_many(jobs jsonb[], tenant text, notify boolean, on_conflict text) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.enqueue_many_v1(jobs jsonb[], tenant text, on_conflict text, on_fault text, fill_created boolean, notify boolean, traceparents text[], resend_of uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.enqueue_many_v1(jobs jsonb[], tenant text, on_conflict text, on_fault text, fill_created boolean, notify boolean, traceparents text[], resend_of uuid) TO outbox_producer;
GRANT ALL ON FUNCTION outbox.enqueue_many_v1(jobs jsonb[], tenant text, on_conflict text, on_fault text, fill_created boolean, notify boolean, traceparents text[], resend_of uuid) TO outbox_api;
GRANT ALL ON FUNCTION outbox.enqueue_many_v1(jobs jsonb[], tenant text, on_conflict text, on_fault text, fill_created boolean, notify boolean, traceparents text[], resend_of uuid) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.enqueue_typical(sent jsonb, tenant text, fill_created boolean, at timestamp with time zone, notify boolean, traceparent text, resend_of uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.enqueue_typical(sent jsonb, tenant text, fill_created boolean, at timestamp with time zone, notify boolean, traceparent text, resend_of uuid) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.enqueue_v1(job jsonb, tenant text, on_conflict text, fill_created boolean, notify boolean, traceparent text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.enqueue_v1(job jsonb, tenant text, on_conflict text, fill_created boolean, notify boolean, traceparent text) TO outbox_producer;
GRANT ALL ON FUNCTION outbox.enqueue_v1(job jsonb, tenant text, on_conflict text, fill_created boolean, notify boolean, traceparent text) TO outbox_api;
GRANT ALL ON FUNCTION outbox.enqueue_v1(job jsonb, tenant text, on_conflict text, fill_created boolean, notify boolean, traceparent text) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.erase_recipient(for_tenant text, for_user text, actor text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.erase_recipient(for_tenant text, for_user text, actor text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.erase_recipient(for_tenant text, for_user text, actor text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.expand_lists(parsed outbox.parsed[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.expand_lists(parsed outbox.parsed[]) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.fill_in_action() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.fill_in_action() TO outbox_dispatcher;

GRANT SELECT,INSERT ON TABLE outbox.job TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.job TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.job_key TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.job_key TO outbox_api;

REVOKE ALL ON FUNCTION outbox.find_job(tenant text, wanted uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.find_job(tenant text, wanted uuid) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.find_job(tenant text, wanted uuid) TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.dead_letter TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.dead_letter TO outbox_api;

REVOKE ALL ON FUNCTION outbox.fits_replay(d outbox.dead_letter, filter jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.fits_replay(d outbox.dead_letter, filter jsonb) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.from_priority(value smallint) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.from_priority(value smallint) TO outbox_auditor;
GRANT ALL ON FUNCTION outbox.from_priority(value smallint) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.from_priority(value smallint) TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.entry TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.entry TO outbox_api;

REVOKE ALL ON FUNCTION outbox.has_live(low bigint, high bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.has_live(low bigint, high bigint) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.head_ended() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.head_ended() TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.headers_faults(headers jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.headers_faults(headers jsonb) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.hold_lane(for_tenant text, for_queue text, for_scope text, code text, reason text, first_probe_s double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.hold_lane(for_tenant text, for_queue text, for_scope text, code text, reason text, first_probe_s double precision) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.id_floor(at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.id_floor(at timestamp with time zone) TO outbox_auditor;
GRANT ALL ON FUNCTION outbox.id_floor(at timestamp with time zone) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.id_floor(at timestamp with time zone) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.id_of(tenant text, job_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.id_of(tenant text, job_id uuid) TO outbox_auditor;
GRANT ALL ON FUNCTION outbox.id_of(tenant text, job_id uuid) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.id_time(id bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.id_time(id bigint) TO outbox_auditor;
GRANT ALL ON FUNCTION outbox.id_time(id bigint) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.id_time(id bigint) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.uuid5(namespace uuid, name text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.uuid5(namespace uuid, name text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.uuid5(namespace uuid, name text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.idempotent_job_id(tenant text, idempotency_key text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.idempotent_job_id(tenant text, idempotency_key text) TO outbox_producer;
GRANT ALL ON FUNCTION outbox.idempotent_job_id(tenant text, idempotency_key text) TO outbox_api;
GRANT ALL ON FUNCTION outbox.idempotent_job_id(tenant text, idempotency_key text) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.in_test_mode() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.in_test_mode() TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.in_test_mode() TO outbox_api;

REVOKE ALL ON FUNCTION outbox.in_three_digits(number numeric) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.in_three_digits(number numeric) TO outbox_api;
GRANT ALL ON FUNCTION outbox.in_three_digits(number numeric) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.is_erased(wanted bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.is_erased(wanted bigint) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.is_test_lane(scope text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.is_test_lane(scope text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.is_test_lane(scope text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.is_typical(job jsonb, user_id text, channel text, template_code text, locale text, meta jsonb, event_id text, campaign_id text, priority text, said_id text, job_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.is_typical(job jsonb, user_id text, channel text, template_code text, locale text, meta jsonb, event_id text, campaign_id text, priority text, said_id text, job_id uuid) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.key_faults(job jsonb, window_s_max integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.key_faults(job jsonb, window_s_max integer) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.key_hash(address_key bytea, tenant text, queue text, key text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.key_hash(address_key bytea, tenant text, queue text, key text) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.lane_of(for_tenant text, for_queue text, for_scope text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.lane_of(for_tenant text, for_queue text, for_scope text) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.lanes_of(parsed outbox.parsed[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.lanes_of(parsed outbox.parsed[]) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.lease_limits(for_epoch bigint, lane_ids integer[], destinations text[], in_use integer[], wanted integer[], back double precision[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.lease_limits(for_epoch bigint, lane_ids integer[], destinations text[], in_use integer[], wanted integer[], back double precision[]) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.limits_now(wanted integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.limits_now(wanted integer) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.limits_now(wanted integer) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.list_destinations(wanted text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.list_destinations(wanted text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.list_destinations(wanted text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.live_status(claimed_by bigint, available_at timestamp with time zone, waits smallint) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.live_status(claimed_by bigint, available_at timestamp with time zone, waits smallint) TO outbox_auditor;
GRANT ALL ON FUNCTION outbox.live_status(claimed_by bigint, available_at timestamp with time zone, waits smallint) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.live_status(claimed_by bigint, available_at timestamp with time zone, waits smallint) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.look_up(named outbox.named) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.look_up(named outbox.named) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.make_lanes() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.make_lanes() TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.make_partitions(days_ahead integer, now timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.make_partitions(days_ahead integer, now timestamp with time zone) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.make_partitions(days_ahead integer, now timestamp with time zone) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.miss_receipts(overdue_s double precision, batch integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.miss_receipts(overdue_s double precision, batch integer) TO outbox_dispatcher;

GRANT USAGE ON SEQUENCE outbox.id_seq TO outbox_dispatcher;
GRANT USAGE ON SEQUENCE outbox.id_seq TO outbox_api;

REVOKE ALL ON FUNCTION outbox.next_id() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.next_id() TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.next_version() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.next_version() TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.note_change() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.note_change() TO outbox_dispatcher;

GRANT SELECT,INSERT ON TABLE outbox.delivery TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.delivery TO outbox_api;

REVOKE ALL ON FUNCTION outbox.partition_days_left(now timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.partition_days_left(now timestamp with time zone) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.partition_days_left(now timestamp with time zone) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.pass_on(of_ordering bigint, after_place bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.pass_on(of_ordering bigint, after_place bigint) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.pause_destination(wanted text, pause_s double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.pause_destination(wanted text, pause_s double precision) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.payload_priority(value jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.payload_priority(value jsonb) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.pickup_bounds_s() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.pickup_bounds_s() TO outbox_auditor;
GRANT ALL ON FUNCTION outbox.pickup_bounds_s() TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.plain_meta(job jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.plain_meta(job jsonb) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.plan_replay(for_tenant text, filter jsonb, jobs_max integer, looked_max integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.plan_replay(for_tenant text, filter jsonb, jobs_max integer, looked_max integer) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.plan_replay(for_tenant text, filter jsonb, jobs_max integer, looked_max integer) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.probe_s() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.probe_s() TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.promote_job(wanted bigint, actor text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.promote_job(wanted bigint, actor text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.promote_job(wanted bigint, actor text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.prune_aged(rows_max integer, now timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.prune_aged(rows_max integer, now timestamp with time zone) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.prune_dedup(keys_max integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.prune_dedup(keys_max integer) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.prune_destinations() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.prune_destinations() TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.prune_lanes(lanes_max integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.prune_lanes(lanes_max integer) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.prune_retired(jobs_max integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.prune_retired(jobs_max integer) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.quantile_s(counts bigint[], bounds_s double precision[], q double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.quantile_s(counts bigint[], bounds_s double precision[], q double precision) TO outbox_auditor;
GRANT ALL ON FUNCTION outbox.quantile_s(counts bigint[], bounds_s double precision[], q double precision) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.queue_counts(of_queue text, of_tenant text, walk boolean, exact_max integer, pages_max integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.queue_counts(of_queue text, of_tenant text, walk boolean, exact_max integer, pages_max integer) TO outbox_api;
GRANT ALL ON FUNCTION outbox.queue_counts(of_queue text, of_tenant text, walk boolean, exact_max integer, pages_max integer) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.raise_conflicts(parsed outbox.parsed[], results outbox.enqueued[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.raise_conflicts(parsed outbox.parsed[], results outbox.enqueued[]) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.raise_faults(parsed outbox.parsed[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.raise_faults(parsed outbox.parsed[]) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.rare_faults(sent jsonb, job jsonb, channel text, tenant text, limits outbox.setting) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.rare_faults(sent jsonb, job jsonb, channel text, tenant text, limits outbox.setting) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.read_job(ord integer, id bigint, sent jsonb, tenant text, fill_created boolean, at timestamp with time zone, limits outbox.setting) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.read_job(ord integer, id bigint, sent jsonb, tenant text, fill_created boolean, at timestamp with time zone, limits outbox.setting) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.read_jobs(jobs jsonb[], tenant text, fill_created boolean, at timestamp with time zone, limits outbox.setting) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.read_jobs(jobs jsonb[], tenant text, fill_created boolean, at timestamp with time zone, limits outbox.setting) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.recent_payloads(for_tenant text, for_code text, for_channel text, for_locale text, payloads_max integer, jobs_max integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.recent_payloads(for_tenant text, for_code text, for_channel text, for_locale text, payloads_max integer, jobs_max integer) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.recent_payloads(for_tenant text, for_code text, for_channel text, for_locale text, payloads_max integer, jobs_max integer) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.release_job(wanted bigint, actor text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.release_job(wanted bigint, actor text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.release_job(wanted bigint, actor text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.reorder(wanted bigint, tenant text, of_queue text, key text, lane integer, OUT lane_id integer, OUT ordering_id bigint, OUT place bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.reorder(wanted bigint, tenant text, of_queue text, key text, lane integer, OUT lane_id integer, OUT ordering_id bigint, OUT place bigint) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.replay_outlook(numbers bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.replay_outlook(numbers bigint[]) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.report_destinations(for_epoch bigint, names text[], goods integer[], bads integer[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.report_destinations(for_epoch bigint, names text[], goods integer[], bads integer[]) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.retention_day(now timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.retention_day(now timestamp with time zone) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.retention_lag(now timestamp with time zone, OUT days integer, OUT live boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.retention_lag(now timestamp with time zone, OUT days integer, OUT live boolean) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.retention_lag(now timestamp with time zone, OUT days integer, OUT live boolean) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.retire_day(now timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.retire_day(now timestamp with time zone) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.retry_job(wanted bigint, actor text, action text, dead_letter bigint, note jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.retry_job(wanted bigint, actor text, action text, dead_letter bigint, note jsonb) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.retry_job(wanted bigint, actor text, action text, dead_letter bigint, note jsonb) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.ring(lane_ids integer[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.ring(lane_ids integer[]) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.ring(lane_ids integer[]) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.schema_revisions(OUT pre integer, OUT post integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.schema_revisions(OUT pre integer, OUT post integer) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.schema_revisions(OUT pre integer, OUT post integer) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.scope_lane(for_tenant text, for_queue text, for_scope text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.scope_lane(for_tenant text, for_queue text, for_scope text) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.scope_now() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.scope_now() TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.sees(tenant text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.sees(tenant text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.sees(tenant text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.sees_job(wanted bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.sees_job(wanted bigint) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.sees_job(wanted bigint) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.set_apart(parsed outbox.parsed[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.set_apart(parsed outbox.parsed[]) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.set_destination(wanted text, to_rate_per_s double precision, to_burst integer, resume boolean, actor text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.set_destination(wanted text, to_rate_per_s double precision, to_burst integer, resume boolean, actor text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.set_destination(wanted text, to_rate_per_s double precision, to_burst integer, resume boolean, actor text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.set_lane_limits(for_tenant text, for_queue text, to_weight integer, to_concurrency_max integer, to_rate_per_s double precision, to_burst integer, actor text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.set_lane_limits(for_tenant text, for_queue text, to_weight integer, to_concurrency_max integer, to_rate_per_s double precision, to_burst integer, actor text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.set_lane_limits(for_tenant text, for_queue text, to_weight integer, to_concurrency_max integer, to_rate_per_s double precision, to_burst integer, actor text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.set_paused(for_queue text, for_tenant text, paused boolean, actor text, reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.set_paused(for_queue text, for_tenant text, paused boolean, actor text, reason text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.set_paused(for_queue text, for_tenant text, paused boolean, actor text, reason text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.settle_destination(wanted text, well boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.settle_destination(wanted text, well boolean) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.sha1(message bytea) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.sha1(message bytea) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.step_replay(batch integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.step_replay(batch integer) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.stop_replay(wanted uuid, actor text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.stop_replay(wanted uuid, actor text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.stop_replay(wanted uuid, actor text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.store_jobs(parsed outbox.parsed[], keyed_ids bigint[], lane_ids integer[], some_expired boolean, at timestamp with time zone, traceparents text[], resend_of uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.store_jobs(parsed outbox.parsed[], keyed_ids bigint[], lane_ids integer[], some_expired boolean, at timestamp with time zone, traceparents text[], resend_of uuid) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.store_keys(parsed outbox.parsed[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.store_keys(parsed outbox.parsed[]) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.store_ordered(parsed outbox.parsed[], fresh_ids bigint[], at timestamp with time zone, address_key bytea) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.store_ordered(parsed outbox.parsed[], fresh_ids bigint[], at timestamp with time zone, address_key bytea) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.take_ordering(tenant text, of_queue text, hash bytea, OUT ordering_id bigint, OUT is_new boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.take_ordering(tenant text, of_queue text, hash bytea, OUT ordering_id bigint, OUT is_new boolean) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.take_receipts(for_tenant text, for_provider uuid, provider_name text, events json) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.take_receipts(for_tenant text, for_provider uuid, provider_name text, events json) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.take_receipts(for_tenant text, for_provider uuid, provider_name text, events json) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.test_key(key text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.test_key(key text) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.text_fault(job jsonb, key text, chars_max integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.text_fault(job jsonb, key text, chars_max integer) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.to_faults(value jsonb, channel text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.to_faults(value jsonb, channel text) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.to_odd_time(value text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.to_odd_time(value text) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.to_priority(value text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.to_priority(value text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.to_priority(value text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.to_time(value text) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.to_time(value text) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.to_time(value text) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.tokens_now(bucket text, rate_per_s double precision, burst integer) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.tokens_now(bucket text, rate_per_s double precision, burst integer) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.told_of(of_table text, content jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.told_of(of_table text, content jsonb) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.told_of(of_table text, content jsonb) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.told_of_person(content jsonb, before jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.told_of_person(content jsonb, before jsonb) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.told_of_person(content jsonb, before jsonb) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.unknown_faults(rest jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.unknown_faults(rest jsonb) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.unseen_by(wanted bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.unseen_by(wanted bigint) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.unseen_by(wanted bigint) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.uuid7() FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.uuid7() TO outbox_producer;
GRANT ALL ON FUNCTION outbox.uuid7() TO outbox_api;
GRANT ALL ON FUNCTION outbox.uuid7() TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.waits_for(claimed_by bigint, lane_id integer, paused_at timestamp with time zone, held_at timestamp with time zone, scope text, available_at timestamp with time zone, waits smallint) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.waits_for(claimed_by bigint, lane_id integer, paused_at timestamp with time zone, held_at timestamp with time zone, scope text, available_at timestamp with time zone, waits smallint) TO outbox_auditor;
GRANT ALL ON FUNCTION outbox.waits_for(claimed_by bigint, lane_id integer, paused_at timestamp with time zone, held_at timestamp with time zone, scope text, available_at timestamp with time zone, waits smallint) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.waits_for(claimed_by bigint, lane_id integer, paused_at timestamp with time zone, held_at timestamp with time zone, scope text, available_at timestamp with time zone, waits smallint) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.whole_job(job_id uuid, created_at timestamp with time zone, job jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.whole_job(job_id uuid, created_at timestamp with time zone, job jsonb) TO outbox_dispatcher;
GRANT ALL ON FUNCTION outbox.whole_job(job_id uuid, created_at timestamp with time zone, job jsonb) TO outbox_api;

REVOKE ALL ON FUNCTION outbox.without_nulls(object jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.without_nulls(object jsonb) TO outbox_dispatcher;

REVOKE ALL ON FUNCTION outbox.sum_counts(bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION outbox.sum_counts(bigint[]) TO outbox_dispatcher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.alert TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.alert TO outbox_api;

GRANT USAGE ON SEQUENCE outbox.alert_alert_id_seq TO outbox_dispatcher;
GRANT USAGE ON SEQUENCE outbox.alert_alert_id_seq TO outbox_api;

GRANT SELECT,INSERT,UPDATE ON TABLE outbox.alert_round TO outbox_dispatcher;
GRANT SELECT,INSERT,UPDATE ON TABLE outbox.alert_round TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.api_key TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.lane TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.lane TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.receipt TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.receipt TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.api_notification TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.api_notification TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.api_notification_delivery TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.api_notification_delivery TO outbox_api;

GRANT SELECT,INSERT ON TABLE outbox.operator_action TO outbox_dispatcher;
GRANT SELECT,INSERT ON TABLE outbox.operator_action TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.api_notification_history TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.api_notification_history TO outbox_api;

GRANT SELECT ON TABLE outbox.api_process TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.api_process TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.bucket TO outbox_dispatcher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.control TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.control TO outbox_api;

GRANT USAGE ON SEQUENCE outbox.dead_letter_dead_letter_id_seq TO outbox_dispatcher;
GRANT USAGE ON SEQUENCE outbox.dead_letter_dead_letter_id_seq TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.dedup TO outbox_dispatcher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.dedup_alias TO outbox_dispatcher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.destination TO outbox_dispatcher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.destination_health TO outbox_dispatcher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.device TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.device TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.dispatcher TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.dispatcher TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.event TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.event TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.handler TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.handler TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.inbox_message TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.inbox_message TO outbox_api;

GRANT USAGE ON SEQUENCE outbox.inbox_message_message_id_seq TO outbox_dispatcher;
GRANT USAGE ON SEQUENCE outbox.inbox_message_message_id_seq TO outbox_api;

GRANT SELECT,INSERT,UPDATE ON TABLE outbox.known_error_code TO outbox_dispatcher;
GRANT SELECT,INSERT,UPDATE ON TABLE outbox.known_error_code TO outbox_api;

GRANT USAGE ON SEQUENCE outbox.lane_lane_id_seq TO outbox_dispatcher;
GRANT USAGE ON SEQUENCE outbox.lane_lane_id_seq TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.lane_share TO outbox_dispatcher;

GRANT SELECT ON TABLE outbox.notification TO outbox_auditor;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.notification TO outbox_dispatcher;

GRANT SELECT ON TABLE outbox.notification_backlog TO outbox_auditor;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.notification_backlog TO outbox_dispatcher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.stat_hour TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.stat_hour TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.stat_second TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.stat_second TO outbox_api;

GRANT SELECT ON TABLE outbox.notification_count TO outbox_auditor;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.notification_count TO outbox_dispatcher;

GRANT SELECT ON TABLE outbox.notification_delivery TO outbox_auditor;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.notification_delivery TO outbox_dispatcher;

GRANT SELECT ON TABLE outbox.notification_history TO outbox_auditor;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.notification_history TO outbox_dispatcher;

GRANT SELECT ON TABLE outbox.notification_replay TO outbox_auditor;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.notification_replay TO outbox_dispatcher;

GRANT SELECT ON TABLE outbox.notification_trouble TO outbox_auditor;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.notification_trouble TO outbox_dispatcher;

GRANT SELECT ON TABLE outbox.notification_waiting TO outbox_auditor;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.notification_waiting TO outbox_dispatcher;

GRANT USAGE ON SEQUENCE outbox.operator_action_action_id_seq TO outbox_dispatcher;
GRANT USAGE ON SEQUENCE outbox.operator_action_action_id_seq TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.ordering TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.ordering TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.ordering_gap TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.ordering_gap TO outbox_api;

GRANT USAGE ON SEQUENCE outbox.ordering_ordering_id_seq TO outbox_dispatcher;
GRANT USAGE ON SEQUENCE outbox.ordering_ordering_id_seq TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.outcome_log TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.outcome_log TO outbox_api;

GRANT USAGE ON SEQUENCE outbox.place_seq TO outbox_dispatcher;
GRANT USAGE ON SEQUENCE outbox.place_seq TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.producer_tenant TO outbox_dispatcher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.progress TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.progress TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.provider TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.provider TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.queue_pause TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.queue_pause TO outbox_api;

GRANT SELECT ON TABLE outbox.queue_backlog TO outbox_scaler;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.queue_backlog TO outbox_dispatcher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.queue_now TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.queue_now TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.receipt_expected TO outbox_dispatcher;

GRANT USAGE ON SEQUENCE outbox.receipt_receipt_id_seq TO outbox_dispatcher;
GRANT USAGE ON SEQUENCE outbox.receipt_receipt_id_seq TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.recipient TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.recipient TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.replay_run TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.replay_run TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.rule TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.rule TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.schedule TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.schedule TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.sink_message TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.sink_message TO outbox_api;

GRANT USAGE ON SEQUENCE outbox.sink_message_message_id_seq TO outbox_dispatcher;
GRANT USAGE ON SEQUENCE outbox.sink_message_message_id_seq TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.socket TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.socket TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.socket_message TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.socket_message TO outbox_api;

GRANT USAGE ON SEQUENCE outbox.socket_message_message_id_seq TO outbox_dispatcher;
GRANT USAGE ON SEQUENCE outbox.socket_message_message_id_seq TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.stat_quarter TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.stat_quarter TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.stat_total TO outbox_dispatcher;
GRANT SELECT ON TABLE outbox.stat_total TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.suppression TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.suppression TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.template TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.template TO outbox_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.tenant TO outbox_dispatcher;
GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE outbox.tenant TO outbox_api;

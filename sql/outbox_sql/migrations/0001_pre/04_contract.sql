-- The contract (docs/contracts.md): one reading of a job, for all three doors.

create type outbox.fault as (pointer text, message text);

create type outbox.parsed as (
    ord               int,
    id                bigint,
    job_id            uuid,
    tenant_id         text,
    queue             text,
    channel           text,
    template_code     text,
    locale            text,
    user_id           text,
    event_id          text,
    campaign_id       text,
    category          text,
    priority          smallint,
    max_attempts      smallint,
    created_at        timestamptz,
    send_after        timestamptz,
    expires_at        timestamptz,
    list_job_id       uuid,
    list_job_ids      uuid[],
    content_sha256    bytea,
    job               jsonb,
    faults            outbox.fault[]
);

create function outbox.pointer(key text) returns text
    language sql immutable parallel safe strict
    return '/' || replace(replace(key, '~', '~0'), '/', '~1');

-- NULL for what is no RFC 3339 time with an offset, whatever the session's date style.
-- (pg_input_is_valid would do, but PostgreSQL 15 has none.)
create function outbox.to_time(value text) returns timestamptz
    language plpgsql stable parallel safe strict set search_path = pg_catalog, pg_temp as $$
begin
    if value !~ '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{1,9})?([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$'
       or left(value, 4) = '0000' then
        return null;
    end if;
    if substr(value, 9, 2)::int > 28
       and substr(value, 9, 2)::int > extract(day from make_date(left(value, 4)::int, substr(value, 6, 2)::int, 1)
                                                      + interval '1 month' - interval '1 day') then
        return null;
    end if;
    return value::timestamptz;
exception when datetime_field_overflow or invalid_datetime_format or invalid_time_zone_displacement_value then
    return null;
end
$$;

create function outbox.to_priority(value text) returns smallint
    language sql immutable parallel safe
    return case value when 'low' then 0 when 'normal' then 1 when 'medium' then 1
                      when 'high' then 5 when 'urgent' then 10 end::smallint;

create function outbox.from_priority(value smallint) returns text
    language sql immutable parallel safe strict
    return case value when 0 then 'low' when 1 then 'normal' when 5 then 'high' when 10 then 'urgent' end;

-- SHA-1, for UUIDv5 alone: core Postgres has none, and pgcrypto is not everywhere.
create function outbox.sha1(message bytea) returns bytea
    language plpgsql immutable parallel safe strict set search_path = pg_catalog, pg_temp as $$
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

create function outbox.uuid5(namespace uuid, name text) returns uuid
    language plpgsql immutable parallel safe strict set search_path = pg_catalog, pg_temp as $$
declare
    hash bytea := substr(outbox.sha1(uuid_send(namespace) || convert_to(name, 'UTF8')), 1, 16);
begin
    hash := set_byte(hash, 6, (get_byte(hash, 6) & 15) | 80);
    hash := set_byte(hash, 8, (get_byte(hash, 8) & 63) | 128);
    return encode(hash, 'hex')::uuid;
end
$$;

create function outbox.uuid7() returns uuid
    language sql volatile parallel safe
    return encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid())
        placing substr(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint), 3)
        from 1 for 6), 52, 1), 53, 1), 'hex')::uuid;

-- The job id of an idempotency key: the same on every door, in every release.
create function outbox.idempotent_job_id(tenant text, idempotency_key text) returns uuid
    language sql immutable parallel safe strict
    return outbox.uuid5('6b2f9a52-8f3d-5c1e-9d0a-2f1f6d1c7a10'::uuid, tenant || ':' || idempotency_key);

-- A key's fault if it is there and is not a text of 1 to so many characters.
create function outbox.text_fault(job jsonb, key text, chars_max int) returns outbox.fault
    language sql immutable parallel safe
    return case
        when jsonb_typeof(job -> key) <> 'string' then (outbox.pointer(key), 'must be a string')::outbox.fault
        when char_length(job ->> key) not between 1 and chars_max
            then (outbox.pointer(key), format('must have 1 to %s characters', chars_max))::outbox.fault
    end;

-- The rarer fields: called only for a job that has one of them.
create function outbox.rare_faults(job jsonb, kind text, timeout_s_max int) returns outbox.fault[]
    language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    faults outbox.fault[] := '{}';
    key text;
    value jsonb;
begin
    foreach key in array array['ordering_key', 'dedup_key', 'dedup_window_s'] loop
        if job ? key then
            faults := faults || (outbox.pointer(key), 'is not supported yet')::outbox.fault;
        end if;
    end loop;
    if job ? 'endpoint' then
        faults := faults || ('/endpoint', 'no such endpoint')::outbox.fault;
    end if;
    faults := faults || outbox.text_fault(job, 'subject', 998);
    faults := faults || outbox.text_fault(job, 'idempotency_key', 255);
    if jsonb_typeof(job -> 'content') <> 'string' then
        faults := faults || ('/content', 'must be a string')::outbox.fault;
    elsif job ? 'content' and job ? 'template_code' then
        faults := faults || ('/content', 'cannot be combined with template_code')::outbox.fault;
    elsif job ->> 'content' = '' then
        faults := faults || ('/content', 'must not be empty')::outbox.fault;
    end if;
    if job ? 'category' and (jsonb_typeof(job -> 'category') <> 'string'
                             or job ->> 'category' !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$') then
        faults := faults || ('/category', 'must be one word of at most 64 letters, digits, "_", "." or "-"')::outbox.fault;
    end if;
    if job ? 'max_attempts' then
        value := job -> 'max_attempts';
        if jsonb_typeof(value) <> 'number' or (value::numeric not between 1 and 100)
           or value::numeric <> trunc(value::numeric) then
            faults := faults || ('/max_attempts', 'must be a whole number from 1 to 100')::outbox.fault;
        end if;
    end if;
    if job ? 'timeout_s' then
        value := job -> 'timeout_s';
        if jsonb_typeof(value) <> 'number' or value::numeric <= 0 or value::numeric > timeout_s_max then
            faults := faults || ('/timeout_s', format('must be a number above 0, at most %s', timeout_s_max))::outbox.fault;
        end if;
    end if;
    if job ? 'headers' then
        if jsonb_typeof(job -> 'headers') <> 'object' then
            faults := faults || ('/headers', 'must be an object')::outbox.fault;
        else
            if (select count(*) from jsonb_object_keys(job -> 'headers')) > 50 then
                faults := faults || ('/headers', 'must have at most 50 members')::outbox.fault;
            end if;
            for key, value in select h.key, h.value from jsonb_each(job -> 'headers') as h limit 50 loop
                if key !~ '^[A-Za-z0-9!#$%&''*+.^_`|~-]{1,128}$' then
                    faults := faults || ('/headers' || outbox.pointer(key), 'is no valid header name')::outbox.fault;
                elsif jsonb_typeof(value) <> 'string' then
                    faults := faults || ('/headers' || outbox.pointer(key), 'must be a string')::outbox.fault;
                elsif (value #>> '{}') ~ '[\x01-\x08\x0a-\x1f\x7f]' or char_length(value #>> '{}') > 4096 then
                    faults := faults || ('/headers' || outbox.pointer(key),
                                         'must be one line of at most 4096 characters')::outbox.fault;
                end if;
            end loop;
        end if;
    end if;
    if job ? 'to' then
        faults := faults || outbox.to_faults(job -> 'to', kind);
    end if;
    return array(select f from unnest(faults) as f where f.pointer is not null);
end
$$;

create function outbox.to_faults(value jsonb, channel text) returns outbox.fault[]
    language plpgsql immutable parallel safe set search_path = pg_catalog, pg_temp as $$
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
$$;

-- Read one job: its columns, or all of its faults. `fill_created` is for HTTP, where created_at
-- defaults to now. What the server fills in is no part of the content's hash.
create function outbox.read_job(
    ord int, sent jsonb, tenant text, fill_created boolean, at timestamptz, limits outbox.setting
) returns outbox.parsed
    language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    p outbox.parsed;
    job jsonb;
    meta jsonb;
    faults outbox.fault[] := '{}';
    extra text;
    size_bytes int;
    written text;
begin
    p.ord := ord;
    if sent is null or jsonb_typeof(sent) <> 'object' then
        p.faults := array[('', 'must be an object')::outbox.fault];
        return p;
    end if;
    written := sent::text;
    size_bytes := octet_length(written);
    if size_bytes > limits.job_bytes_max then
        p.faults := array[('', format('is %s bytes long, more than %s', size_bytes, limits.job_bytes_max))::outbox.fault];
        return p;
    end if;
    job := sent;
    if strpos(written, ': null') > 0 then
        -- An explicit null means the same as leaving the field out.
        job := coalesce((select jsonb_object_agg(e.key, e.value) from jsonb_each(sent) as e
                         where e.value <> 'null'), '{}');
    end if;
    if job ->> 'channel' = 'database' then
        job := jsonb_set(job, '{channel}', '"inbox"');
    end if;
    meta := job -> 'meta';

    if job - array['job_id', 'user_id', 'channel', 'template_code', 'locale', 'data', 'meta', 'created_at',
                   'send_after', 'expires_at', 'to', 'subject', 'content', 'queue', 'tenant_id',
                   'idempotency_key', 'category', 'ordering_key', 'dedup_key', 'dedup_window_s',
                   'max_attempts', 'timeout_s', 'headers', 'payload', 'endpoint'] <> '{}' then
        for extra in
            select jsonb_object_keys(job - array['job_id', 'user_id', 'channel', 'template_code', 'locale',
                'data', 'meta', 'created_at', 'send_after', 'expires_at', 'to', 'subject', 'content', 'queue',
                'tenant_id', 'idempotency_key', 'category', 'ordering_key', 'dedup_key', 'dedup_window_s',
                'max_attempts', 'timeout_s', 'headers', 'payload', 'endpoint']) limit 100
        loop
            faults := faults || (outbox.pointer(extra), 'is not a known field')::outbox.fault;
        end loop;
    end if;

    -- Whose it is.
    p.tenant_id := coalesce(tenant, 'default');
    if job ? 'tenant_id' then
        if jsonb_typeof(job -> 'tenant_id') <> 'string'
           or char_length(job ->> 'tenant_id') not between 1 and 128 then
            faults := faults || ('/tenant_id', 'must be a string of 1 to 128 characters')::outbox.fault;
        elsif tenant is not null and tenant <> job ->> 'tenant_id' then
            faults := faults || ('/tenant_id', 'is not the tenant that this job was handed in for')::outbox.fault;
        else
            p.tenant_id := job ->> 'tenant_id';
        end if;
    end if;

    -- What kind of job it is, and its place.
    p.channel := job ->> 'channel';
    p.queue := coalesce(job ->> 'queue', p.channel);
    if job ? 'queue' and (jsonb_typeof(job -> 'queue') <> 'string'
                          or job ->> 'queue' !~ '^[a-z0-9][a-z0-9._-]{0,62}$') then
        faults := faults || ('/queue', 'must be 1 to 63 of a-z, 0-9, ".", "_", "-"')::outbox.fault;
        p.queue := null;
    end if;
    if job ? 'channel' then
        if jsonb_typeof(job -> 'channel') <> 'string'
           or p.channel not in ('email', 'push', 'ws', 'sms', 'telegram', 'inbox', 'browser', 'webhook') then
            faults := faults || ('/channel', 'must be one of email, push, ws, sms, telegram, inbox, database, browser, webhook')::outbox.fault;
            p.channel := null;
        end if;
        if job ? 'payload' then
            faults := faults || ('/payload', 'cannot be combined with channel')::outbox.fault;
        end if;
    elsif job ? 'payload' or (job ? 'queue' and not job ? 'template_code') then
        if not job ? 'queue' then
            faults := faults || ('/queue', 'is required beside payload')::outbox.fault;
        end if;
        if not job ? 'payload' then
            faults := faults || ('/payload', 'is required where there is no channel')::outbox.fault;
        elsif jsonb_typeof(job -> 'payload') <> 'object' then
            faults := faults || ('/payload', 'must be an object')::outbox.fault;
        elsif jsonb_path_exists(job -> 'payload', 'strict $.**{32} ? (@.type() == "object" || @.type() == "array")') then
            faults := faults || ('/payload', 'must not nest deeper than 32 levels')::outbox.fault;
        end if;
    else
        faults := faults || ('/channel', 'is required')::outbox.fault;
    end if;

    -- Who it is.
    if job ? 'job_id' then
        if jsonb_typeof(job -> 'job_id') = 'string'
           and job ->> 'job_id' ~ '^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$' then
            p.job_id := (job ->> 'job_id')::uuid;
        else
            faults := faults || ('/job_id', 'must be a UUID')::outbox.fault;
        end if;
    elsif jsonb_typeof(job -> 'idempotency_key') = 'string'
          and char_length(job ->> 'idempotency_key') between 1 and 255 then
        p.job_id := outbox.idempotent_job_id(p.tenant_id, job ->> 'idempotency_key');
    elsif not job ? 'idempotency_key' then
        p.job_id := outbox.uuid7();
    end if;

    p.user_id := job ->> 'user_id';
    if job ? 'user_id' then
        if jsonb_typeof(job -> 'user_id') <> 'string' or char_length(p.user_id) not between 1 and 128 then
            faults := faults || ('/user_id', 'must be a string of 1 to 128 characters')::outbox.fault;
        end if;
    elsif p.channel = 'webhook' or job ? 'payload' then
        null;
    elsif p.channel is not null and not job ? 'to' or p.channel = 'inbox' then
        faults := faults || ('/user_id', 'is required unless to is given')::outbox.fault;
    end if;
    if p.channel = 'webhook' and not job ?| array['to', 'endpoint'] then
        faults := faults || ('/to', 'is required for a webhook')::outbox.fault;
    end if;

    p.template_code := job ->> 'template_code';
    if job ? 'template_code' then
        if jsonb_typeof(job -> 'template_code') <> 'string' or char_length(p.template_code) not between 1 and 128 then
            faults := faults || ('/template_code', 'must be a string of 1 to 128 characters')::outbox.fault;
        end if;
    elsif p.channel is not null and p.channel <> 'webhook' and not job ? 'content' then
        faults := faults || ('/template_code', 'is required unless content is given')::outbox.fault;
    end if;

    p.locale := job ->> 'locale';
    if p.locale is not null and (jsonb_typeof(job -> 'locale') <> 'string' or p.locale !~ '^[A-Za-z0-9_-]{1,35}$') then
        faults := faults || ('/locale', 'must be a language tag')::outbox.fault;
    end if;

    if job ? 'data' then
        if jsonb_typeof(job -> 'data') <> 'object' then
            faults := faults || ('/data', 'must be an object')::outbox.fault;
        elsif jsonb_path_exists(job -> 'data', 'strict $.**{32} ? (@.type() == "object" || @.type() == "array")') then
            faults := faults || ('/data', 'must not nest deeper than 32 levels')::outbox.fault;
        end if;
    elsif p.channel is not null then
        faults := faults || ('/data', 'is required')::outbox.fault;
    end if;

    p.priority := 1;
    if meta is null then
        if p.channel is not null and p.channel <> 'webhook' then
            faults := faults || ('/meta', 'is required')::outbox.fault;
        end if;
    elsif jsonb_typeof(meta) <> 'object' then
        faults := faults || ('/meta', 'must be an object')::outbox.fault;
    else
        p.event_id := meta ->> 'event_id';
        p.campaign_id := meta ->> 'campaign_id';
        if jsonb_path_exists(meta, 'strict $.**{32} ? (@.type() == "object" || @.type() == "array")') then
            faults := faults || ('/meta', 'must not nest deeper than 32 levels')::outbox.fault;
        end if;
        if jsonb_typeof(meta -> 'event_type') not in ('string', 'null') or char_length(meta ->> 'event_type') > 128 then
            faults := faults || ('/meta/event_type', 'must be a string of at most 128 characters')::outbox.fault;
        end if;
        if jsonb_typeof(meta -> 'event_id') not in ('string', 'null') or char_length(p.event_id) > 128 then
            faults := faults || ('/meta/event_id', 'must be a string of at most 128 characters')::outbox.fault;
        end if;
        if jsonb_typeof(meta -> 'campaign_id') not in ('string', 'null') or char_length(p.campaign_id) > 128 then
            faults := faults || ('/meta/campaign_id', 'must be a string or null, of at most 128 characters')::outbox.fault;
        end if;
        if jsonb_typeof(meta -> 'priority') not in ('string', 'null')
           or outbox.to_priority(meta ->> 'priority') is null and meta ->> 'priority' is not null then
            faults := faults || ('/meta/priority', 'must be low, normal, medium, high or urgent')::outbox.fault;
        else
            p.priority := coalesce(outbox.to_priority(meta ->> 'priority'), 1);
        end if;
    end if;
    if p.queue = 'media-sync' and job ? 'payload' and job -> 'payload' ? 'priority' then
        if jsonb_typeof(job -> 'payload' -> 'priority') = 'number'
           and (job -> 'payload' ->> 'priority')::numeric between 1 and 10 then
            p.priority := case when (job -> 'payload' ->> 'priority')::numeric <= 2 then 0
                               when (job -> 'payload' ->> 'priority')::numeric <= 5 then 1
                               when (job -> 'payload' ->> 'priority')::numeric <= 8 then 5 else 10 end;
        else
            faults := faults || ('/payload/priority', 'must be a number from 1 to 10')::outbox.fault;
        end if;
    end if;

    -- When.
    if job ? 'created_at' then
        p.created_at := case jsonb_typeof(job -> 'created_at') when 'string' then outbox.to_time(job ->> 'created_at') end;
        if p.created_at is null then
            faults := faults || ('/created_at', 'must be an RFC 3339 time with an offset')::outbox.fault;
        end if;
    elsif fill_created or p.channel is null then
        p.created_at := at;
    else
        faults := faults || ('/created_at', 'is required')::outbox.fault;
    end if;
    if job ? 'send_after' then
        p.send_after := case jsonb_typeof(job -> 'send_after') when 'string' then outbox.to_time(job ->> 'send_after') end;
        if p.send_after is null then
            faults := faults || ('/send_after', 'must be an RFC 3339 time with an offset')::outbox.fault;
        elsif p.send_after > at + make_interval(secs => limits.retention_s) then
            faults := faults || ('/send_after', format('lies more than %s days ahead', limits.retention_s / 86400))::outbox.fault;
        end if;
    end if;
    if job ? 'expires_at' then
        p.expires_at := case jsonb_typeof(job -> 'expires_at') when 'string' then outbox.to_time(job ->> 'expires_at') end;
        if p.expires_at is null then
            faults := faults || ('/expires_at', 'must be an RFC 3339 time with an offset')::outbox.fault;
        elsif p.send_after >= p.expires_at then
            faults := faults || ('/send_after', 'must lie before expires_at')::outbox.fault;
        end if;
    end if;

    if job ?| array['to', 'subject', 'content', 'idempotency_key', 'category', 'ordering_key', 'dedup_key',
                    'dedup_window_s', 'max_attempts', 'timeout_s', 'headers', 'endpoint'] then
        faults := faults || outbox.rare_faults(job, p.channel, limits.timeout_s_max);
        p.category := job ->> 'category';
    end if;

    if cardinality(faults) > 0 then
        p.faults := faults;
        return p;
    end if;
    p.max_attempts := (job ->> 'max_attempts')::smallint;
    p.content_sha256 := sha256(convert_to(case when job ? 'job_id' then (job - 'job_id')::text
                                               when job = sent then written else job::text end, 'UTF8'));
    p.job := job;
    return p;
end
$$;

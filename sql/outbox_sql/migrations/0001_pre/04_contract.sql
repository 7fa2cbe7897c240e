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

-- NULL for what is no RFC 3339 time with an offset, whatever the session's date style, and for what
-- no language's calendar holds (years 2 to 9999, in UTC). Every part is checked first, so that the
-- cast cannot fail: catching its error would cost a subtransaction.
create function outbox.to_time(value text) returns timestamptz
    language sql stable parallel safe
    return case
        when value ~ '^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9](\.[0-9]{1,9})?|60(\.0{1,9})?)([Zz]|[+-](0[0-9]|1[0-5]):[0-5][0-9])$'
             and left(value, 4)::int >= 2
             and (substr(value, 9, 2)::int <= 28
                  or substr(value, 9, 2)::int <= extract(day from
                      make_date(left(value, 4)::int, substr(value, 6, 2)::int, 1) + interval '1 month' - interval '1 day'))
             and (left(value, 4) <> '9999' or value::timestamptz < '10000-01-01 00:00:00+00'::timestamptz)
        then value::timestamptz
    end;

-- In the form that everybody writes; uuid's own reader takes braces and missing hyphens too. (One
-- regular expression over 36 places costs ten times as much as these three looks.)
create function outbox.is_uuid(value text) returns boolean
    language sql immutable parallel safe
    return value like '________-____-____-____-____________' and value !~ '[^0-9a-fA-F-]'
           and octet_length(replace(value, '-', '')) = 32;

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

-- The id of a job that names none itself; NULL beside a faulty idempotency_key.
create function outbox.new_job_id(idempotency_key jsonb, tenant text) returns uuid
    language sql volatile parallel safe
    return case when idempotency_key is null then outbox.uuid7()
                when jsonb_typeof(idempotency_key) = 'string' and char_length(idempotency_key #>> '{}') between 1 and 255
                    then outbox.idempotent_job_id(tenant, idempotency_key #>> '{}') end;

create function outbox.null_keys(object jsonb) returns text[]
    language sql immutable parallel safe
    return array(select e.key from jsonb_each(object) as e where e.value = 'null');

create function outbox.to_faults(value jsonb, channel text) returns outbox.fault[]
    language plpgsql immutable parallel safe as $$
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

create function outbox.headers_faults(headers jsonb) returns outbox.fault[]
    language plpgsql immutable parallel safe as $$
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
$$;

-- The rarer fields, without their nulls: called only for a job that has one of them.
create function outbox.rare_faults(rare jsonb, template_code text, channel text, timeout_s_max int)
    returns outbox.fault[]
    language plpgsql stable parallel safe as $$
declare
    faults outbox.fault[] := '{}';
    key text;
begin
    if rare ?| array['ordering_key', 'dedup_key', 'dedup_window_s'] then
        foreach key in array array['ordering_key', 'dedup_key', 'dedup_window_s'] loop
            if rare ? key then
                faults := faults || (outbox.pointer(key), 'is not supported yet')::outbox.fault;
            end if;
        end loop;
    end if;
    if rare ? 'endpoint' then
        faults := faults || ('/endpoint', 'no such endpoint')::outbox.fault;
    end if;
    if rare ?| array['subject', 'idempotency_key'] then
        faults := faults || outbox.text_fault(rare, 'subject', 998);
        faults := faults || outbox.text_fault(rare, 'idempotency_key', 255);
    end if;
    if rare ? 'content' then
        if jsonb_typeof(rare -> 'content') <> 'string' then
            faults := faults || ('/content', 'must be a string')::outbox.fault;
        elsif template_code is not null then
            faults := faults || ('/content', 'cannot be combined with template_code')::outbox.fault;
        elsif rare ->> 'content' = '' then
            faults := faults || ('/content', 'must not be empty')::outbox.fault;
        end if;
    end if;
    if rare ? 'category' and (jsonb_typeof(rare -> 'category') <> 'string'
                              or rare ->> 'category' !~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$') then
        faults := faults || ('/category', 'must be one word of at most 64 letters, digits, "_", "." or "-"')::outbox.fault;
    end if;
    -- Read as text: 1.0 is a whole number too, but would be none when its text is cast.
    if rare ? 'max_attempts' and (jsonb_typeof(rare -> 'max_attempts') <> 'number'
                                  or rare ->> 'max_attempts' !~ '^([1-9][0-9]?|100)$') then
        faults := faults || ('/max_attempts', 'must be a whole number from 1 to 100')::outbox.fault;
    end if;
    if rare ? 'timeout_s' and (jsonb_typeof(rare -> 'timeout_s') <> 'number'
                               or (rare ->> 'timeout_s')::numeric <= 0
                               or (rare ->> 'timeout_s')::numeric > timeout_s_max) then
        faults := faults || ('/timeout_s', format('must be a number above 0, at most %s', timeout_s_max))::outbox.fault;
    end if;
    if rare ? 'headers' then
        faults := faults || outbox.headers_faults(rare -> 'headers');
    end if;
    if rare ? 'to' then
        faults := faults || outbox.to_faults(rare -> 'to', channel);
    end if;
    return array(select f from unnest(faults) as f where f.pointer is not null);
end
$$;

-- Where containers nest too deep: found by one look over the whole job, told field by field.
create function outbox.depth_faults(job jsonb) returns outbox.fault[]
    language sql immutable parallel safe
    return array(
        select (outbox.pointer(e.key), 'must not nest deeper than 32 levels')::outbox.fault
        from jsonb_each(job) as e
        where e.key in ('data', 'meta', 'payload')
          and jsonb_path_exists(e.value, 'strict $.**{32} ? (@.type() == "object" || @.type() == "array")'));

create function outbox.unknown_faults(rest jsonb) returns outbox.fault[]
    language sql immutable parallel safe
    return array(
        select (outbox.pointer(k.key), 'is not a known field')::outbox.fault
        from jsonb_object_keys(rest - array['to', 'subject', 'content', 'queue', 'tenant_id', 'idempotency_key',
            'category', 'ordering_key', 'dedup_key', 'dedup_window_s', 'max_attempts', 'timeout_s', 'headers',
            'payload', 'endpoint']) as k(key)
        limit 20);

-- A media-sync payload's own priority, 1 to 10; NULL where it is none of them.
create function outbox.payload_priority(value jsonb) returns smallint
    language sql immutable parallel safe
    return case when jsonb_typeof(value) = 'number' and (value #>> '{}') ~ '^([1-9]|10)$'
        then case when (value #>> '{}')::int <= 2 then 0
                  when (value #>> '{}')::int <= 5 then 1
                  when (value #>> '{}')::int <= 8 then 5 else 10 end
    end::smallint;

-- Read jobs: the columns of each, or all of its faults; in the order given. A field that is null
-- counts as left out. What the server fills in is no part of the content's hash. `fill_created` is
-- for HTTP, where created_at defaults to now.
--
-- One statement for the whole list, because plpgsql's cost by statement would be most of an
-- enqueue (measured: 75 against 25 µs a job). Each step is a subquery that `offset 0` fences: else
-- the planner would write its expressions out again wherever they are used. (As lateral joins they
-- would get Memoize nodes, which doubled the time.) Functions of the hot path carry no
-- `set search_path` of their own: only pinned functions call them.
create function outbox.read_jobs(
    jobs jsonb[], tenant text, fill_created boolean, at timestamptz, limits outbox.setting
) returns outbox.parsed[]
    language plpgsql volatile as $$
#variable_conflict use_column
declare
    first_id bigint := outbox.id_floor(clock_timestamp());
    now_at alias for at;
    for_tenant alias for tenant;
    fill alias for fill_created;
begin
    return array(
    with given as (
        select u.n, u.sent, case when jsonb_typeof(u.sent) = 'object' then u.sent else '{}' end as said
        from unnest(jobs) with ordinality as u(sent, n)
        offset 0
    ), texts as (
        select g.*,
               g.said ->> 'job_id' as said_id, g.said ->> 'user_id' as user_id, g.said ->> 'channel' as said_channel,
               g.said ->> 'template_code' as template_code, g.said ->> 'locale' as locale,
               g.said ->> 'created_at' as said_created, g.said ->> 'send_after' as said_send,
               g.said ->> 'expires_at' as said_expires,
               nullif(jsonb_typeof(g.said -> 'data'), 'null') as data_type,
               nullif(jsonb_typeof(g.said -> 'meta'), 'null') as meta_type,
               g.said -> 'meta' as meta,
               g.said - array['job_id', 'user_id', 'channel', 'template_code', 'locale', 'data', 'meta',
                              'created_at', 'send_after', 'expires_at'] as rest
        from given as g
        offset 0
    ), fields as (
        select t.*,
               case when t.said_channel in ('email', 'push', 'ws', 'sms', 'telegram', 'inbox', 'browser', 'webhook')
                    then t.said_channel when t.said_channel = 'database' then 'inbox' end as channel,
               -- (To write it out costs less than to look at each member.)
               case when t.rest = '{}' or strpos(t.rest::text, ': null') = 0 then t.rest
                    else t.rest - outbox.null_keys(t.rest) end as rare,
               t.meta ->> 'event_type' as event_type, t.meta ->> 'event_id' as event_id,
               t.meta ->> 'campaign_id' as campaign_id, t.meta ->> 'priority' as said_priority,
               outbox.to_time(t.said_created) as sent_at,
               outbox.to_time(t.said_send) as send_after,
               outbox.to_time(t.said_expires) as expires_at
        from texts as t
        offset 0
    ), places as (
        select f.*,
               f.rare ? 'payload' as has_payload,
               coalesce(case when jsonb_typeof(f.rare -> 'tenant_id') = 'string' then f.rare ->> 'tenant_id' end,
                        for_tenant, 'default') as tenant_id,
               coalesce(f.rare ->> 'queue', f.channel) as queue,
               case when f.said_created is not null then f.sent_at
                    when fill or f.channel is null or f.channel = 'webhook' then now_at end as created_at,
               outbox.to_priority(f.said_priority) as meta_priority,
               case when f.rare ->> 'queue' = 'media-sync'
                    then outbox.payload_priority(f.rare -> 'payload' -> 'priority') end as payload_priority
        from fields as f
        offset 0
    ), ids as (
        select p.*,
               case when outbox.is_uuid(p.said_id) then p.said_id::uuid end as job_id,
               p.said - (array['job_id',
                        case when p.user_id is null then 'user_id' end,
                        case when p.said_channel is null then 'channel' end,
                        case when p.template_code is null then 'template_code' end,
                        case when p.locale is null then 'locale' end,
                        case when p.data_type is null then 'data' end,
                        case when p.meta_type is null then 'meta' end,
                        case when p.said_created is null then 'created_at' end,
                        case when p.said_send is null then 'send_after' end,
                        case when p.said_expires is null then 'expires_at' end]
                    || case when p.rest <> p.rare then outbox.null_keys(p.rest) end) as bare
        from places as p
        offset 0
    ), kept as (
        select i.*,
               case when i.said_channel = 'database' then jsonb_set(i.bare, '{channel}', '"inbox"') else i.bare end as job
        from ids as i
        offset 0
    ), written as (
        select k.*, k.job::text as content,
        array_remove(array[
            case when k.said_id is not null and k.job_id is null
                then ('/job_id', 'must be a UUID')::outbox.fault end,
            case when k.rare ? 'tenant_id' then
                case when jsonb_typeof(k.rare -> 'tenant_id') <> 'string'
                          or char_length(k.tenant_id) not between 1 and 128 or k.tenant_id = '*'
                    then ('/tenant_id', 'must be a string of 1 to 128 characters, and not "*"')::outbox.fault
                when k.tenant_id <> for_tenant
                    then ('/tenant_id', 'is not the tenant that this job was handed in for')::outbox.fault end end,
            case when k.said_channel is not null and k.channel is null
                then ('/channel', 'must be one of email, push, ws, sms, telegram, inbox, database, browser, webhook')::outbox.fault
            when k.said_channel is null and not k.has_payload
                 and (not k.rare ? 'queue' or k.template_code is not null)
                then ('/channel', 'is required')::outbox.fault end,
            case when k.rare ? 'queue' then
                case when jsonb_typeof(k.rare -> 'queue') <> 'string' or k.queue !~ '^[a-z0-9][a-z0-9._-]{0,62}$'
                    then ('/queue', 'must be 1 to 63 of a-z, 0-9, ".", "_", "-"')::outbox.fault end
            when k.has_payload and k.said_channel is null
                then ('/queue', 'is required beside payload')::outbox.fault end,
            case when k.has_payload and k.said_channel is not null
                then ('/payload', 'cannot be combined with channel')::outbox.fault
            when k.has_payload and jsonb_typeof(k.rare -> 'payload') <> 'object'
                then ('/payload', 'must be an object')::outbox.fault
            when not k.has_payload and k.said_channel is null and k.template_code is null and k.rare ? 'queue'
                then ('/payload', 'is required where there is no channel')::outbox.fault end,
            case when k.payload_priority is null and k.has_payload and k.queue = 'media-sync'
                      and k.rare -> 'payload' ? 'priority'
                then ('/payload/priority', 'must be a whole number from 1 to 10')::outbox.fault end,
            case when k.user_id is not null then
                case when jsonb_typeof(k.said -> 'user_id') <> 'string' or char_length(k.user_id) not between 1 and 128
                    then ('/user_id', 'must be a string of 1 to 128 characters')::outbox.fault end
            when k.channel = 'inbox' or k.channel <> 'webhook' and not k.has_payload and not k.rare ? 'to'
                then ('/user_id', 'is required unless to is given')::outbox.fault end,
            case when k.channel = 'webhook' and not k.rare ?| array['to', 'endpoint']
                then ('/to', 'is required for a webhook')::outbox.fault end,
            case when k.template_code is not null then
                case when jsonb_typeof(k.said -> 'template_code') <> 'string'
                          or char_length(k.template_code) not between 1 and 128
                    then ('/template_code', 'must be a string of 1 to 128 characters')::outbox.fault end
            when k.channel <> 'webhook' and not k.rare ? 'content'
                then ('/template_code', 'is required unless content is given')::outbox.fault end,
            case when k.locale is not null and (jsonb_typeof(k.said -> 'locale') <> 'string'
                                                or char_length(k.locale) not between 1 and 35
                                                or k.locale ~ '[^A-Za-z0-9_-]')
                then ('/locale', 'must be a language tag')::outbox.fault end,
            case when k.data_type <> 'object' then ('/data', 'must be an object')::outbox.fault
            when k.data_type is null and k.channel is not null
                then ('/data', 'is required')::outbox.fault end,
            case when k.meta_type <> 'object' then ('/meta', 'must be an object')::outbox.fault
            when k.meta_type is null and k.channel <> 'webhook'
                then ('/meta', 'is required')::outbox.fault end,
            case when k.event_type is not null and (jsonb_typeof(k.meta -> 'event_type') <> 'string'
                                                    or char_length(k.event_type) > 128)
                then ('/meta/event_type', 'must be a string of at most 128 characters')::outbox.fault end,
            case when k.event_id is not null and (jsonb_typeof(k.meta -> 'event_id') <> 'string'
                                                  or char_length(k.event_id) > 128)
                then ('/meta/event_id', 'must be a string of at most 128 characters')::outbox.fault end,
            case when k.campaign_id is not null and (jsonb_typeof(k.meta -> 'campaign_id') <> 'string'
                                                     or char_length(k.campaign_id) > 128)
                then ('/meta/campaign_id', 'must be a string of at most 128 characters, or null')::outbox.fault end,
            case when k.said_priority is not null and k.meta_priority is null
                then ('/meta/priority', 'must be low, normal, medium, high or urgent')::outbox.fault end,
            case when k.created_at is null then
                case when k.said_created is null then ('/created_at', 'is required')::outbox.fault
                else ('/created_at', 'must be an RFC 3339 time with an offset')::outbox.fault end end,
            case when k.said_send is not null then
                case when k.send_after is null
                    then ('/send_after', 'must be an RFC 3339 time with an offset')::outbox.fault
                when k.send_after > now_at + make_interval(secs => limits.retention_s)
                    then ('/send_after', format('lies more than %s days ahead', limits.retention_s / 86400))::outbox.fault
                when k.send_after >= k.expires_at
                    then ('/send_after', 'must lie before expires_at')::outbox.fault end end,
            case when k.said_expires is not null and k.expires_at is null
                then ('/expires_at', 'must be an RFC 3339 time with an offset')::outbox.fault end
        ], null)
        || case when k.rest <> '{}' then outbox.unknown_faults(k.rest) end
        || case when k.rare ?| array['to', 'subject', 'content', 'idempotency_key', 'category', 'ordering_key', 'dedup_key',
                                     'dedup_window_s', 'max_attempts', 'timeout_s', 'headers', 'endpoint']
                then outbox.rare_faults(k.rare, k.template_code, k.channel, limits.timeout_s_max) end
        || case when jsonb_path_exists(k.said, 'strict $.*.**{32} ? (@.type() == "object" || @.type() == "array")')
                then outbox.depth_faults(k.said) end as found
        from kept as k
        offset 0
    ), judged as (
        select w.*,
               case when jsonb_typeof(w.sent) is distinct from 'object'
                    then array[('', 'must be an object')::outbox.fault]
               -- The content has no job_id: `"job_id": "…", ` takes 50 bytes.
               when octet_length(w.content) + case when w.said_id is null then 0 else 50 end > limits.job_bytes_max
                    then array[('', format('is longer than %s bytes', limits.job_bytes_max))::outbox.fault]
               else nullif(w.found, '{}') end as faults
        from written as w
        offset 0
    )
    select (j.n, first_id | (nextval('outbox.id_seq') & 4194303),
            case when j.said_id is null then outbox.new_job_id(j.rare -> 'idempotency_key', j.tenant_id) else j.job_id end,
            j.tenant_id, j.queue, j.channel,
            j.template_code, j.locale, j.user_id, j.event_id, j.campaign_id, j.rare ->> 'category',
            coalesce(j.payload_priority, j.meta_priority, 1),
            case when j.faults is null then (j.rare ->> 'max_attempts')::smallint end,
            j.created_at, j.send_after, j.expires_at, null,
            case when jsonb_typeof(j.rare -> 'to') = 'array' then '{}'::uuid[] end,
            case when j.faults is null then sha256(convert_to(j.content, 'UTF8')) end,
            j.job, j.faults)::outbox.parsed
    from judged as j);
end
$$;

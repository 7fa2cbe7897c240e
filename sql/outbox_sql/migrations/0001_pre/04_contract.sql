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
    ordering_key      text,
    dedup_key         text,
    faults            outbox.fault[]
);

create function outbox.pointer(key text) returns text
    language sql immutable parallel safe strict
    return '/' || replace(replace(key, '~', '~0'), '/', '~1');

-- The times that the quick look of to_time leaves over: 29 February, leap seconds, the first and
-- last years. Every part is checked first, so that the cast cannot fail: catching its error would
-- cost a subtransaction.
create function outbox.to_odd_time(value text) returns timestamptz
    language plpgsql stable parallel safe as $$
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
$$;

-- NULL for what is no RFC 3339 time with an offset, whatever the session's date style, and for what
-- no language's calendar holds (years 2 to 9999, in UTC).
create function outbox.to_time(value text) returns timestamptz
    language sql stable parallel safe
    return case
        when value ~ '^[1-8][0-9]{3}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?([Zz]|[+-](0[0-9]|1[0-5]):[0-5][0-9])$'
            then value::timestamptz
        when value is not null then outbox.to_odd_time(value)
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
    language sql immutable parallel safe strict security definer set search_path = pg_catalog, pg_temp
    return outbox.uuid5('6b2f9a52-8f3d-5c1e-9d0a-2f1f6d1c7a10'::uuid, tenant || ':' || idempotency_key);

-- A key's fault if it is there and is not a text of 1 to so many characters.
create function outbox.text_fault(job jsonb, key text, chars_max int) returns outbox.fault
    language sql immutable parallel safe
    return case
        when jsonb_typeof(job -> key) <> 'string' then (outbox.pointer(key), 'must be a string')::outbox.fault
        when char_length(job ->> key) not between 1 and chars_max
            then (outbox.pointer(key), format('must have 1 to %s characters', chars_max))::outbox.fault
    end;

create function outbox.without_nulls(object jsonb) returns jsonb
    language plpgsql immutable parallel safe as $$
begin
    -- (To write it out costs less than to look at each member.)
    if strpos(object::text, ': null') = 0 then
        return object;
    end if;
    return object - array(select e.key from jsonb_each(object) as e where e.value = 'null');
end
$$;

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

-- The faults of one attachment. `item` is without nulls, `at` its pointer.
create function outbox.attachment_faults(item jsonb, at text) returns outbox.fault[]
    language sql immutable parallel safe
    return array_remove(array[
        case when (item ? 'url') = (item ? 's3') then (at, 'must have either url or s3')::outbox.fault end,
        case when item ? 'url' and (jsonb_typeof(item -> 'url') <> 'string' or char_length(item ->> 'url') > 2048
                                    or item ->> 'url' !~* '^https?://[^/?#@\x01-\x20\x7f]+([/?#][^\x01-\x20\x7f]*)?$')
            then (at || '/url', 'must be an http or https URL without a login in it')::outbox.fault end,
        case when item ? 's3' and (jsonb_typeof(item -> 's3') <> 'string'
                                   or char_length(item ->> 's3') not between 1 and 1024
                                   or item ->> 's3' ~ '[\x01-\x1f\x7f\\]|(^|/)\.{0,2}(/|$)')
            then (at || '/s3', 'must be a key of 1 to 1024 characters without a part that is empty, "." or ".."')::outbox.fault end,
        case when item ? 'filename' and (jsonb_typeof(item -> 'filename') <> 'string'
                                         or char_length(item ->> 'filename') not between 1 and 255
                                         or item ->> 'filename' in ('.', '..')
                                         or item ->> 'filename' ~ '[\x01-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069/\\]')
            then (at || '/filename', 'must be a name of 1 to 255 characters without a path or a line break')::outbox.fault
        when item -> 'inline' = 'true' and coalesce(item ->> 'filename' !~ '^[A-Za-z0-9][A-Za-z0-9._-]*$', true)
            then (at || '/filename', 'must be letters, digits, ".", "_" and "-": the HTML shows it by cid:')::outbox.fault end,
        case when item ? 'content_type' and (jsonb_typeof(item -> 'content_type') <> 'string'
                                             or item ->> 'content_type' !~* '^[a-z0-9!#$&^_.+-]{1,64}/[a-z0-9!#$&^_.+-]{1,64}$'
                                             or item ->> 'content_type' ~* '^(multipart|message)/')
            then (at || '/content_type', 'must be a media type without parameters, and no multipart or message')::outbox.fault end,
        case when jsonb_typeof(item -> 'inline') <> 'boolean'
            then (at || '/inline', 'must be true or false')::outbox.fault end
    ], null) || array(
        select (at || outbox.pointer(k.key), 'is not a known field')::outbox.fault
        from jsonb_object_keys(item - array['url', 's3', 'filename', 'content_type', 'inline']) as k(key)
        limit 20);

create function outbox.attachments_faults(attachments jsonb, channel text) returns outbox.fault[]
    language plpgsql immutable parallel safe as $$
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

create function outbox.key_faults(job jsonb, window_s_max int) returns outbox.fault[]
    language plpgsql immutable parallel safe as $$
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
$$;

create function outbox.endpoint_fault(job jsonb, channel text, tenant text) returns outbox.fault
    language sql stable parallel safe
    return case when channel is distinct from 'webhook' then ('/endpoint', 'is for webhooks alone')::outbox.fault
                when job ? 'to' then ('/endpoint', 'cannot be combined with to')::outbox.fault
                when jsonb_typeof(job -> 'endpoint') <> 'string' or not outbox.is_uuid(job ->> 'endpoint')
                     or not exists (select from outbox.endpoint as e
                                    where e.tenant_id = tenant and e.endpoint_id = (job ->> 'endpoint')::uuid)
                    then ('/endpoint', 'no such endpoint')::outbox.fault end;

-- The faults of what few jobs have: unknown and rarer fields, depth. `job` is `sent` without nulls.
create function outbox.rare_faults(sent jsonb, job jsonb, channel text, tenant text, limits outbox.setting)
    returns outbox.fault[]
    language plpgsql stable parallel safe as $$
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
            'category', 'ordering_key', 'dedup_key', 'dedup_window_s', 'dedup_policy', 'max_attempts', 'timeout_s', 'headers',
            'attachments', 'payload', 'endpoint']) as k(key)
        limit 20);

-- A media-sync payload's own priority, 1 to 10; NULL where it is none of them.
create function outbox.payload_priority(value jsonb) returns smallint
    language sql immutable parallel safe
    return case when jsonb_typeof(value) = 'number' and (value #>> '{}') ~ '^([1-9]|10)$'
        then case when (value #>> '{}')::int <= 2 then 0
                  when (value #>> '{}')::int <= 5 then 1
                  when (value #>> '{}')::int <= 8 then 5 else 10 end
    end::smallint;

-- Read one job: its columns, or all of its faults. A field that is null counts as left out. What the
-- server fills in is no part of the content's hash. `fill_created` is for HTTP, where created_at
-- defaults to now.
create function outbox.read_job(
    ord int, id bigint, sent jsonb, tenant text, fill_created boolean, at timestamptz, limits outbox.setting
) returns outbox.parsed
    language plpgsql volatile as $$
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
$$;

-- Whether a job, without its id and its nulls, is a notification with nothing but the ten fields of
-- every one, all of them right, but for the times. Where it says no, read_job decides. It is inlined,
-- and short, because Postgres sets every function of a statement up anew in each transaction.
create function outbox.is_typical(
    job jsonb, user_id text, channel text, template_code text, locale text, meta jsonb, event_id text, campaign_id text,
    priority text, said_id text, job_id uuid
) returns boolean
    language sql immutable parallel safe
    return user_id <> '' and template_code <> '' and (said_id is null or job_id is not null)
        and channel = any('{email,push,ws,sms,telegram,inbox,browser}')
        and (priority = any('{low,normal,medium,high,urgent}') or priority is null)
        and job - '{user_id,channel,template_code,locale,data,meta,created_at,send_after,expires_at}'::text[] = '{}'
        and job @@ '$.user_id.type() == "string" && $.template_code.type() == "string"
            && $.data.type() == "object" && $.meta.type() == "object"
            && (!exists($.locale) || $.locale.type() == "string")
            && (!exists($.meta.event_type) || $.meta.event_type.type() == "string" || $.meta.event_type.type() == "null")
            && (!exists($.meta.event_id) || $.meta.event_id.type() == "string" || $.meta.event_id.type() == "null")
            && (!exists($.meta.campaign_id) || $.meta.campaign_id.type() == "string" || $.meta.campaign_id.type() == "null")'
        and greatest(octet_length(user_id), octet_length(template_code), octet_length(meta ->> 'event_type'),
                     octet_length(event_id), octet_length(campaign_id)) <= 128
        and (locale is null or locale !~ '[^A-Za-z0-9_-]' and octet_length(locale) between 1 and 35)
        and not jsonb_path_exists(job, 'strict $.*.**{32} ? (@.type() == "object" || @.type() == "array")');

-- Read jobs, in the order given. Most are typical, and are read here and then, in one statement for
-- the whole list; all others go to read_job, which is the whole contract and several times as slow.
-- (A test holds the two together.) Each step is a subquery that `offset 0` fences: else the planner
-- would write its expressions out again wherever they are used; as lateral joins they would get
-- Memoize nodes, which doubled the time.
create function outbox.read_jobs(
    jobs jsonb[], tenant text, fill_created boolean, at timestamptz, limits outbox.setting
) returns outbox.parsed[]
    language plpgsql volatile as $$
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

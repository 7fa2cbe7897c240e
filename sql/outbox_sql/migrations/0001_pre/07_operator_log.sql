-- What an action of an operator changed goes into its line of the log, by whichever door it came: rows of
-- these tables tell of themselves, and the line takes in what its transaction has changed so far. (Functions
-- that write a line of their own say there what was before and after.)

-- A row without its key (the line names that), what is secret or personal, and what moves by itself. Of an
-- address the host stays: paths of hooks are passwords, too.
create function outbox.told_of(of_table text, content jsonb) returns jsonb
    language sql immutable parallel safe
    return case when content is not null then
        (content - array['tenant_id', 'created_at', 'updated_at', 'created_by', 'updated_by', 'provider_id', 'endpoint_id',
                         'rule_id', 'schedule_id', 'key_id', 'last_used_at', 'next_at', 'fired_at', 'last_job_id',
                         'last_error', 'last_error_at', 'fires', 'missed',
                         'credentials', 'secrets', 'key_sha256', 'body_text', 'body_html', 'schema', 'job'])
        || case when content ->> 'url' is not null
                then jsonb_build_object('url', substring(content ->> 'url' from '^[a-z]+://') ||
                                               substring(content ->> 'url' from '^[a-z]+://(?:[^/@?#]*@)?([^/?#]*)'))
                else '{}' end
        || case when jsonb_typeof(content -> 'config') = 'object'
                then jsonb_build_object('config', regexp_replace(content ->> 'config', '://[^/@"]*@', '://***@', 'g')::jsonb)
                else '{}' end
        -- That they were changed, and not to what.
        || case when content ->> 'credentials' is not null or content ->> 'secrets' is not null
                then jsonb_build_object('secret', left(encode(sha256(convert_to(
                         coalesce(content ->> 'credentials', '') || coalesce(content ->> 'secrets', ''), 'UTF8')), 'hex'), 8))
                else '{}' end
        || case when of_table = 'schedule' and content -> 'job' <> 'null'
                then jsonb_build_object('job', left(encode(sha256(convert_to(content ->> 'job', 'UTF8')), 'hex'), 8))
                else '{}' end
        end;

-- Only what differs, in both.
create function outbox.differing(one jsonb, other jsonb) returns jsonb
    language sql immutable parallel safe
    return case when one is null or other is null then one
                else (select coalesce(jsonb_object_agg(k.key, k.value), '{}') from jsonb_each(one) as k
                      where other -> k.key is distinct from k.value) end;

-- Of a person only which fields are set, and which have changed from `before`: the log is never erased.
create function outbox.told_of_person(content jsonb, before jsonb default null) returns jsonb
    language sql immutable parallel safe
    return case when content is not null then
        (content - array['tenant_id', 'user_id', 'device_id', 'p256dh', 'auth', 'reason', 'created_at', 'updated_at', 'seen_at'])
        || (select coalesce(jsonb_object_agg(k.key, case when k.value in ('null', '{}') then 'null'::jsonb
                                when coalesce(before -> k.key, 'null') in ('null', '{}', k.value) then '"set"'
                                else '"changed"' end), '{}')
            from jsonb_each(content) as k
            where k.key in ('email', 'phone', 'telegram_chat_id', 'attributes', 'quiet_hours', 'address'))
        end;

create function outbox.note_change() returns trigger
    language plpgsql as $$
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

do $$
declare
    name text;
begin
    foreach name in array array['tenant', 'provider', 'endpoint', 'rule', 'schedule', 'template', 'api_key'] loop
        execute format('create trigger note_change after insert or update or delete on outbox.%I
                        for each row execute function outbox.note_change()', name);
    end loop;
    -- Not where dispatchers write them, for whom no line of the log is written.
    foreach name in array array['recipient', 'device', 'suppression'] loop
        execute format('create trigger note_change after insert or update or delete on outbox.%I
                        for each row when (current_setting(%L, true) <> %L)
                        execute function outbox.note_change()', name, 'outbox.tenant', '');
    end loop;
end
$$;

-- Whoever acts may have said why, and from where, in their transaction's settings.
create function outbox.fill_in_action() returns trigger
    language plpgsql as $$
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
create trigger fill_in before insert on outbox.operator_action
    for each row execute function outbox.fill_in_action();

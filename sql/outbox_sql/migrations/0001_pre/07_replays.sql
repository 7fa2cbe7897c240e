-- Replays of many dead letters: planned first, then gone through at a pace by whichever dispatcher is there.
-- A run's row holds how far it has come; a step moves it in the transaction that replays. So a crash loses
-- nothing, and no dead letter is replayed twice.

create function outbox.fits_replay(d outbox.dead_letter, filter jsonb) returns boolean
    language sql stable parallel safe
    return (filter ->> 'queue' is null or d.queue = filter ->> 'queue')
       and (filter ->> 'reason' is null or d.reason = filter ->> 'reason')
       and (filter ->> 'error_class' is null or d.error_class = filter ->> 'error_class')
       and (filter ->> 'error_code' is null or d.error_code = filter ->> 'error_code')
       and (filter ->> 'template_code' is null or d.job ->> 'template_code' = filter ->> 'template_code')
       and (filter ->> 'campaign_id' is null or d.job -> 'meta' ->> 'campaign_id' = filter ->> 'campaign_id')
       and (filter ->> 'since' is null or d.failed_at >= (filter ->> 'since')::timestamptz)
       and (filter ->> 'until' is null or d.failed_at < (filter ->> 'until')::timestamptz);

-- What would become of dead letters that were replayed now: would_send; expired; duplicate (it was replayed,
-- or its job lives again or ended otherwise since); suppressed (by address or by opt-out: it would fail at
-- once); gone (there is no job to send any more, or never was).
create function outbox.replay_outlook(numbers bigint[])
    returns table (dead_letter_id bigint, id bigint, verdict text)
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
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

-- How many dead letters fit, and what would become of the oldest `looked_max` of them, as JSON.
create function outbox.plan_replay(for_tenant text, filter jsonb, jobs_max int, looked_max int default 20000)
    returns jsonb
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
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

create function outbox.begin_replay(
    wanted uuid, for_tenant text, filter jsonb, rate_per_s double precision, jobs_max int, plan jsonb, actor text,
    reason text
) returns text  -- begun, known (it was begun before), other (with another order)
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
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

create function outbox.stop_replay(wanted uuid, actor text) returns text  -- stopped, ended, unknown
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
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

-- Take one run a step further: up to `batch` dead letters, of which as many are sent as its rate allows.
-- Returns after how many seconds there is more to do; null: nothing runs, or others are at it. A look goes
-- over 20,000 rows at most, so that a filter that fits little holds no row for long.
create function outbox.step_replay(batch int default 200) returns double precision
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
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

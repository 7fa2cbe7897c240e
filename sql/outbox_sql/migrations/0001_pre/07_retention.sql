-- Retention: a day whose jobs are older than setting.retention_s goes away whole, with all that belongs
-- to them; what is not kept by day goes by its own age. One step a call, each a short transaction
-- with a short lock_timeout. Any dispatcher may call at any time: whoever comes second does nothing.
-- Why a plain DETACH, under the owner's rights: ADR 7.

create function outbox.retention_day(now timestamptz) returns date
    language sql stable
    return ((coalesce(now, clock_timestamp()) - make_interval(secs => (select s.retention_s from outbox.setting as s)))
            at time zone 'utc')::date - 1;
comment on function outbox.retention_day is 'The youngest day of which every job is older than its retention.';

create function outbox.has_live(low bigint, high bigint) returns boolean
    language sql stable
    return exists (select from outbox.entry as e where e.id >= low and e.id < high);

-- Take the oldest day that is over age and has nothing live out of `job`; null: there is none. Raises
-- lock_not_available when somebody's transaction holds `job` for longer than producers may wait.
create function outbox.retire_day(now timestamptz default null) returns date
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '50ms' as $$
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

-- Delete what belongs to the next `jobs_max` jobs of a day that is being retired: idempotency keys,
-- receipts, inbox messages. When none is left, its history goes, and both tables are dropped. Returns
-- how many jobs it was; null: no day is being retired, or somebody else is at it.
-- Keys go before history: a duplicate that comes meanwhile is still told how the job ended.
create function outbox.prune_retired(jobs_max int default 1000) returns int
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '50ms' set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
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
$$;

-- Delete what is over age and not kept by day, up to `rows_max` of each kind, oldest first; returns how
-- many. Tables whose key only grows need no index by age: the oldest rows have the lowest keys.
create function outbox.prune_aged(rows_max int default 1000, now timestamptz default null) returns int
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '50ms' set enable_seqscan = off as $$
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

-- Delete narrow lanes (a hold's, or what waits for a destination) that have nothing in line any more; they are
-- made again when they are needed. What was counted there goes on to the queue's own lane. Returns how many.
-- Test jobs' own lane stays, so that what is counted there is never taken for real. Held ones stay, but for those of one job, which is gone: nothing would ever probe them. Whoever moves an entry
-- to a lane holds the lane's row until that is committed (record.sql), so no lane goes from under one.
create function outbox.prune_lanes(lanes_max int default 500) returns int
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '50ms' as $$
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
$$;

-- ANALYZE the partitioned tables, which autovacuum never does: once a day, and when they have grown or
-- shrunk by a fifth since. Returns those that it did.
create function outbox.analyze_parents(now timestamptz default null) returns text[]
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '50ms' as $$
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

-- How many days past its age the oldest day is that is still there, and whether it has live jobs.
create function outbox.retention_lag(now timestamptz default null, out days int, out live boolean)
    language sql stable security definer set search_path = pg_catalog, pg_temp
    as $$ select outbox.retention_day(now) - d.day + 1, outbox.has_live(d.low, d.high)
          from (select * from outbox.days_of('outbox.job') as x where x.day <= outbox.retention_day(now)
                order by x.day limit 1) as d $$;

-- Delete ended jobs with all that belongs to them, oldest first: what an operator asks for. Dead letters
-- stay, they have an age of their own. Returns how many jobs.
create function outbox.clean_jobs(
    for_queue text, for_tenant text, of_status text, older_than_s double precision, jobs_max int, actor text,
    keep_last int default null
) returns int
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
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

-- A job's public status (contracts.md 2), and the three views that SQL readers rely on.

create function outbox.live_status(claimed_by bigint, available_at timestamptz, waits smallint) returns text
    language sql stable parallel safe
    return case when claimed_by is not null then 'processing'
                when available_at <= clock_timestamp() then 'pending'
                when waits = 1 then 'retrying'
                when waits >= 3 then 'pending'
                else 'scheduled' end;

-- What keeps an entry from being claimed now; null where nothing does, or where there is none.
create function outbox.waits_for(claimed_by bigint, lane_id int, paused_at timestamptz, held_at timestamptz, scope text,
                                 available_at timestamptz, waits smallint) returns text
    language sql stable parallel safe
    return case when lane_id is null or claimed_by is not null then null
                when lane_id < 0 then 'ordering head'
                when paused_at is not null then 'lane paused'
                when held_at is not null then 'lane held'
                when available_at > clock_timestamp() then
                    case waits when 1 then 'backoff' when 2 then 'snooze' when 3 then 'destination paused'
                               when 4 then 'no handler' else 'send_after' end
                when scope like 'destination:%' then 'destination'
                else 'dispatcher' end;

create function outbox.ended_status(status text) returns text
    language sql immutable parallel safe strict
    return lower(status);

-- (In plpgsql, which keeps its plan: in SQL it was planned anew for each of a list's duplicates.)
create function outbox.current_status(job bigint) returns text
    language plpgsql stable as $$
begin
    return coalesce(
        (select outbox.live_status(e.claimed_by, e.available_at, e.waits) from outbox.entry as e where e.id = job),
        (select outbox.ended_status(d.status) from outbox.delivery as d
         where d.id = job and d.terminal and not d.late order by d.series desc limit 1));
end
$$;

-- The job as its producer wrote it, with what the server filled in.
create function outbox.whole_job(job_id uuid, created_at timestamptz, job jsonb) returns jsonb
    language sql stable parallel safe
    return jsonb_build_object('job_id', job_id, 'created_at',
                              to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) || job;

create function outbox.address_hash(address text) returns bigint
    language sql stable security definer set search_path = pg_catalog, pg_temp
    return (select ('x' || encode(substr(sha256(s.address_key || convert_to(lower(address), 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint
            from outbox.setting as s);
comment on function outbox.address_hash is 'The keyed hash under which delivery finds what was sent to an address.';

-- For auditors, who may not read job_key, and because no index knows job_id alone.
create function outbox.id_of(tenant text, job_id uuid) returns bigint
    language sql stable security definer set search_path = pg_catalog, pg_temp
    return (select k.id from outbox.job_key as k where k.tenant_id = id_of.tenant and k.job_id = id_of.job_id);
comment on function outbox.id_of is 'The internal id of a job: the views find one job fast by `where id = outbox.id_of(…)`.';

create view outbox.notification_delivery as
select j.job_id, j.tenant_id, j.user_id, j.channel, j.queue, j.template_code, d.template_version, coalesce(d.locale, j.locale) as locale,
       j.event_id, j.campaign_id, j.category, d.recipient, d.subject, encode(d.content_sha256, 'hex') as content_sha256,
       d.series, d.attempt, d.lease_no, d.late, d.status, d.provider, d.provider_message_id, d.error_class,
       d.error_code, d.error_message, d.started_at, d.finished_at, d.duration_ms, d.next_attempt_at,
       d.recipient_hash, outbox.id_time(j.id) as accepted_at, j.send_after, j.expires_at, j.id, d.id as delivery_id
from outbox.delivery as d
join outbox.job as j on j.id = d.id;
comment on view outbox.notification_delivery is 'One row for each attempt and each terminal event; never changed afterwards.';
comment on column outbox.notification_delivery.delivery_id is
    'The same number as id: a range over days bounds both, so that only those days'' partitions are read.';

-- For reports over many rows: nothing of the job but its lane, so no day's jobs are read for it.
create view outbox.notification_trouble as
select d.id, d.tenant_id,
       -- A lane that is no more, or none: what came late.
       coalesce(l.queue, (select j.queue from outbox.job as j where j.id = d.id)) as queue, d.series, d.attempt, d.lease_no, d.late, d.status, d.provider, d.error_class, d.error_code,
       d.error_message, d.started_at, d.finished_at, d.next_attempt_at
from outbox.delivery as d
left join outbox.lane as l on l.lane_id = d.lane_id
where d.late or d.status <> 'SENT';
comment on view outbox.notification_trouble is
    'One row for each attempt and each end that did not go as it should, or came late: bound id to read its days alone.';

create view outbox.notification as
select j.job_id, j.tenant_id, j.user_id, j.channel, j.queue, j.template_code, j.locale, j.event_id, j.campaign_id,
       j.category, outbox.from_priority(j.priority) as priority,
       case when e.id is not null then outbox.live_status(e.claimed_by, e.available_at, e.waits)
            else outbox.ended_status(d.status) end as status,
       outbox.waits_for(e.claimed_by, e.lane_id, l.paused_at, l.held_at, l.scope, e.available_at, e.waits) as waiting_for,
       j.created_at, outbox.id_time(j.id) as accepted_at, j.send_after, j.expires_at,
       e.available_at as due_at,
       case when e.id is null then d.finished_at end as finished_at,
       coalesce(e.series, d.series) as series,
       coalesce(e.attempt, d.attempt) as attempts,
       coalesce(e.max_attempts, 0) as max_attempts,
       d.error_class as last_error_class, d.error_code as last_error_code, d.error_message as last_error,
       r.status as receipt_status, r.at as receipt_at,
       j.resend_of, j.list_job_id, case when j.test then 'test' else 'live' end as mode,
       case when e.claimed_by is null then coalesce(l.paused_at, l.held_at) end as stopped_at,
       case when e.claimed_by is null then l.paused_by end as paused_by,
       case when e.claimed_by is null then l.hold_code end as hold_code,
       case when e.claimed_by is null then l.hold_reason end as hold_reason,
       j.id
from outbox.job as j
left join outbox.entry as e on e.id = j.id
left join outbox.lane as l on l.lane_id = abs(e.lane_id)
-- The newest row, which is the last one's end where no entry is left.
left join lateral (select d.status, d.finished_at, d.series, d.attempt, d.error_class, d.error_code, d.error_message
                   from outbox.delivery as d
                   where d.id = j.id and not d.late order by d.lease_no desc limit 1) as d on true
left join lateral (select r.status, r.at from outbox.receipt as r
                   where r.id = j.id
                   -- Forward only, in whatever order they came in.
                   order by array_position(array['missing', 'delivered', 'opened', 'bounced', 'complained',
                                                 'opted_out'], r.status) desc limit 1) as r on true;
comment on view outbox.notification is 'One row for each job, the waiting ones too.';

-- What still waits or runs, found from the entries: few beside all jobs ever, and in the order of their ids.
create view outbox.notification_waiting as
select j.job_id, l.tenant_id, j.user_id, j.channel, l.queue, j.template_code, j.event_id, j.campaign_id, j.category,
       outbox.from_priority(e.priority) as priority,
       outbox.live_status(e.claimed_by, e.available_at, e.waits) as status,
       outbox.waits_for(e.claimed_by, e.lane_id, l.paused_at, l.held_at, l.scope, e.available_at, e.waits) as waiting_for,
       outbox.id_time(e.id) as accepted_at, j.send_after, e.expires_at, e.available_at as due_at, e.series,
       e.attempt as attempts, d.error_code as last_error_code, d.error_message as last_error,
       case when e.claimed_by is null then coalesce(l.paused_at, l.held_at) end as stopped_at,
       case when e.claimed_by is null then l.paused_by end as paused_by,
       case when e.claimed_by is null then l.hold_code end as hold_code,
       case when e.claimed_by is null then l.hold_reason end as hold_reason,
       e.id
from outbox.entry as e
join outbox.lane as l on l.lane_id = abs(e.lane_id)
cross join lateral (select j.job_id, j.user_id, j.channel, j.template_code, j.event_id, j.campaign_id, j.category, j.send_after
                    from outbox.job as j where j.id = e.id offset 0) as j
left join lateral (select d.error_code, d.error_message from outbox.delivery as d
                   where d.id = e.id and not d.late order by d.lease_no desc limit 1) as d on true;
comment on view outbox.notification_waiting is 'One row for each job that has not ended.';

-- A job's rows of history are read once, whatever they are asked for: each table that is named is planned
-- for each of its days.
create view outbox.notification_history as
select j.job_id, h.status, h.at, h.attempt, h.error, j.tenant_id, h.series, h.step, j.id
from outbox.job as j
cross join lateral (
    with d as (
        select d.lease_no, d.late, d.terminal, d.status, d.series, d.attempt, d.started_at, d.finished_at, d.next_attempt_at,
               d.error_class, d.error_code, d.error_message
        from outbox.delivery as d where d.id = j.id
    ), a as (
        select a.action, a.at, a.detail from outbox.operator_action as a
        where a.id = j.id and a.action in ('retry', 'replay', 'promote')
    )
    -- Accepted; what had expired by then has nothing but its end (lease_no 0).
    select case when j.send_after > outbox.id_time(j.id) then 'scheduled' else 'pending' end as status,
           outbox.id_time(j.id) as at, 0 as attempt, null::text as error, 1::smallint as series, 0 as step
    where j.expires_at is null or not exists (select from d where d.lease_no = 0)
    union all
    -- send_after came, unless somebody promoted the job or it ended before.
    select 'pending' as status, j.send_after, 0, null as error, 1::smallint as series, 1
    where j.send_after > outbox.id_time(j.id) and j.send_after <= clock_timestamp()
      and not exists (select from d where coalesce(d.started_at, d.finished_at) < j.send_after)
      and not exists (select from a where a.action = 'promote' and a.at < j.send_after)
    union all
    -- Retried, replayed, promoted.
    select 'pending' as status, a.at,
           case when a.action = 'promote' then coalesce(
               (select d.attempt from d where not d.late and d.finished_at < a.at order by d.lease_no desc limit 1), 0) else 0 end,
           null as error, (a.detail ->> 'series')::smallint as series, 2
    from a
    union all
    -- An attempt that is over: its start …
    select 'processing' as status, d.started_at, d.attempt, null as error, d.series, 3
    from d where d.started_at is not null and not d.late
    union all
    -- … its outcome, or a terminal event …
    select case when d.terminal then outbox.ended_status(d.status)
                when d.error_class = 'held' or d.error_code = 'lease.lost' or d.next_attempt_at <= d.finished_at then 'pending'
                when d.error_class = 'snoozed' then 'scheduled'
                else 'retrying' end,
           d.finished_at, d.attempt, coalesce(d.error_message, d.error_code), d.series, 4
    from d where not d.late
    union all
    -- … and the moment when it was due again, unless something came before that.
    select 'pending' as status, d.next_attempt_at, d.attempt, null as error, d.series, 5
    from d
    where not d.late and not d.terminal and d.next_attempt_at > d.finished_at and d.next_attempt_at <= clock_timestamp()
      and d.error_class is distinct from 'held' and d.error_code is distinct from 'lease.lost'
      and not exists (select from d as n
                      where n.lease_no > d.lease_no and not n.late
                        and coalesce(n.started_at, n.finished_at) < d.next_attempt_at)
      and not exists (select from a
                      where a.action = 'promote' and a.at >= d.finished_at and a.at < d.next_attempt_at)
    union all
    -- The attempt that is running.
    select 'processing' as status, e.claimed_at, e.attempt, null as error, e.series, 6
    from outbox.entry as e where e.id = j.id and e.claimed_by is not null
) as h;
comment on view outbox.notification_history is 'Every change of a job''s state; order by job_id, series, at, step.';

-- `offset 0` hands each id over as a constant: of 90 days only the job's own is read, and never all of them.
create view outbox.notification_replay as
select j.job_id, j.tenant_id, j.user_id, j.channel, j.queue, j.template_code, j.event_id, j.campaign_id,
       a.action, a.at as replayed_at, a.actor as replayed_by, a.series,
       f.failed_attempts, f.failed_at, l.reason, f.error_class, f.error_code, f.error_message,
       f.outcome, f.outcome_at, a.id, a.why, a.run_id
from (select a.id, a.action, a.at, a.actor, (a.detail ->> 'series')::smallint as series,
             a.detail ->> 'reason' as why, (a.detail ->> 'run_id')::uuid as run_id
      from outbox.operator_action as a where a.action in ('retry', 'replay')) as a
cross join lateral (select j.job_id, j.tenant_id, j.user_id, j.channel, j.queue, j.template_code, j.event_id, j.campaign_id
                    from outbox.job as j where j.id = a.id offset 0) as j
left join lateral (
    -- The end of the series before, and that of its own.
    select max(d.attempt) filter (where d.series < a.series) as failed_attempts,
           max(d.finished_at) filter (where d.series < a.series) as failed_at,
           max(d.error_class) filter (where d.series < a.series) as error_class,
           max(d.error_code) filter (where d.series < a.series) as error_code,
           max(d.error_message) filter (where d.series < a.series) as error_message,
           max(d.status) filter (where d.series = a.series) as outcome,
           max(d.finished_at) filter (where d.series = a.series) as outcome_at
    from outbox.delivery as d
    where d.id = a.id and d.series between a.series - 1 and a.series and d.terminal and not d.late) as f on true
left join lateral (select l.reason from outbox.dead_letter as l
                   where l.id = a.id and l.series = a.series - 1 order by l.dead_letter_id desc limit 1) as l on true;
comment on view outbox.notification_replay is
    'One row for each new series of a failed job: what had failed, who asked for it when, what came of it.';

-- The API reads the same views under its own rights, so that row-level security holds for it.
do $$
declare
    name text;
begin
    foreach name in array array['notification', 'notification_delivery', 'notification_history'] loop
        execute format('create view outbox.api_%s with (security_invoker = true) as %s', name,
                       pg_get_viewdef(format('outbox.%I', name)::regclass));
    end loop;
end
$$;

-- What autoscalers ask (deploy/helm/outbox): how long the oldest job of a queue has been due that a dispatcher could
-- take now. Paused and held lanes don't count, nor those that wait for a destination's rate, since more dispatchers
-- would not help them; nor do places behind the head of an ordering_key. A loose index scan: it costs one probe for each (lane, priority), whatever the backlog.
create view outbox.queue_backlog as
with recursive place as (
    (select e.lane_id, e.priority from outbox.entry as e where e.lane_id > 0 order by e.lane_id, e.priority limit 1)
    union all
    select n.lane_id, n.priority
    from place as p
    cross join lateral (
        select e.lane_id, e.priority from outbox.entry as e
        where (e.lane_id, e.priority) > (p.lane_id, p.priority) order by e.lane_id, e.priority limit 1) as n
)
select l.queue, extract(epoch from clock_timestamp() - min(d.available_at))::float8 as oldest_due_s
from place as p
join outbox.lane as l on l.lane_id = p.lane_id
cross join lateral (
    select e.available_at from outbox.entry as e
    where e.lane_id = p.lane_id and e.priority = p.priority and e.claimed_by is null
    order by e.available_at, e.id limit 1) as d
where l.paused_at is null and l.held_at is null and l.scope !~ '^destination:' and d.available_at <= clock_timestamp()
  and not exists (select from outbox.queue_pause as q where q.queue = l.queue)
group by l.queue;
comment on view outbox.queue_backlog is 'For autoscalers: the age of the oldest job that a dispatcher could take now, by queue.';

create view outbox.queue_now as
select l.queue, l.tenant_id,
       count(*) filter (where e.claimed_by is null and e.available_at <= clock_timestamp()) as waiting,
       count(*) filter (where e.claimed_by is not null) as active,
       count(*) filter (where e.claimed_by is null and e.available_at > clock_timestamp()) as delayed,
       min(e.available_at) filter (where e.claimed_by is null and e.lane_id > 0 and e.available_at <= clock_timestamp())
           as oldest_waiting_at
from outbox.entry as e
join outbox.lane as l on l.lane_id = abs(e.lane_id)
where l.scope <> 'test' and not starts_with(l.scope, 'test:')
group by l.queue, l.tenant_id;

-- The same for auditors, by the owner's rights.
do $$
begin
    execute 'create view outbox.notification_backlog as ' || pg_get_viewdef('outbox.queue_now'::regclass);
end
$$;
comment on view outbox.notification_backlog is 'What waits and runs now, without test jobs, by queue and tenant.';

-- Histograms: arrays of counts by bucket, whose upper bounds are those of outbox/telemetry.py; one more holds the rest.
create function outbox.pickup_bounds_s() returns float8[] language sql immutable parallel safe
    return array[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]::float8[];
create function outbox.arrival_bounds_s() returns float8[] language sql immutable parallel safe
    return array[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 21600, 86400]::float8[];

create function outbox.quantile_s(counts bigint[], bounds_s float8[], q float8) returns float8
    language sql immutable parallel safe
    return (select case when b.n > cardinality(bounds_s) then bounds_s[cardinality(bounds_s)]
                        else coalesce(bounds_s[b.n - 1], 0)
                             + (bounds_s[b.n] - coalesce(bounds_s[b.n - 1], 0)) * ((q * b.total - b.upto + b.count) / b.count)::float8 end
            from (select c.n, c.count, sum(c.count) over (order by c.n) as upto, sum(c.count) over () as total
                  from unnest(counts) with ordinality as c(count, n)) as b
            where b.count > 0 and b.upto >= q * b.total
            order by b.n limit 1);
comment on function outbox.quantile_s is 'A quantile of a histogram, taken to lie evenly within its bucket; null when it is empty.';

create function outbox.add_counts(a bigint[], b bigint[]) returns bigint[]
    language plpgsql immutable parallel safe as $$
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
create aggregate outbox.sum_counts(bigint[]) (sfunc = outbox.add_counts, stype = bigint[], parallel = safe);

-- What reports over days read instead of history: it costs the same whatever is kept.
create view outbox.notification_count as
select s.at, l.tenant_id, l.queue, s.sent, s.failed, s.expired, s.cancelled, s.retrying, s.rescued, s.late, s.pickups, s.arrivals
from (select h.at, h.lane_id, h.sent, h.failed, h.expired, h.cancelled, h.retrying, h.rescued, h.late, h.pickups, h.arrivals
      from outbox.stat_hour as h
      union all
      select date_trunc('hour', n.at), n.lane_id, n.sent, n.failed, n.expired, n.cancelled, n.retrying, n.rescued, n.late,
             n.pickups, n.arrivals
      from outbox.stat_second as n) as s
join outbox.lane as l on l.lane_id = s.lane_id
where l.scope <> 'test' and not starts_with(l.scope, 'test:');  -- outbox.is_test_lane, which auditors may not call
comment on view outbox.notification_count is
    'Counts, without test jobs, by hour, queue and tenant of what happened then, in any number of rows, with histograms (outbox.quantile_s).';

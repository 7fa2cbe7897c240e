-- A job's public status (contracts.md 2), and the three views that SQL readers rely on.

create function outbox.live_status(claimed_by bigint, available_at timestamptz, waits smallint) returns text
    language sql stable parallel safe
    return case when claimed_by is not null then 'processing'
                when available_at <= clock_timestamp() then 'pending'
                when waits = 1 then 'retrying'
                else 'scheduled' end;

create function outbox.ended_status(status text) returns text
    language sql immutable parallel safe strict
    return lower(status);

create function outbox.current_status(job bigint) returns text
    language sql stable
    return coalesce(
        (select outbox.live_status(e.claimed_by, e.available_at, e.waits) from outbox.entry as e where e.id = job),
        (select outbox.ended_status(d.status) from outbox.delivery as d
         where d.id = job and d.terminal and not d.late order by d.series desc limit 1));

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

create view outbox.notification_delivery as
select j.job_id, d.tenant_id, j.user_id, j.channel, j.queue, j.template_code, d.template_version, j.locale,
       j.event_id, j.campaign_id, j.category, d.recipient, d.subject, encode(d.content_sha256, 'hex') as content_sha256,
       d.series, d.attempt, d.lease_no, d.late, d.status, d.provider, d.provider_message_id, d.error_class,
       d.error_code, d.error_message, d.started_at, d.finished_at, d.duration_ms, d.next_attempt_at,
       d.recipient_hash, d.id
from outbox.delivery as d
join outbox.job as j on j.id = d.id;
comment on view outbox.notification_delivery is 'One row for each attempt and each terminal event; never changed afterwards.';

create view outbox.notification as
select j.job_id, j.tenant_id, j.user_id, j.channel, j.queue, j.template_code, j.locale, j.event_id, j.campaign_id,
       j.category, outbox.from_priority(j.priority) as priority,
       case when e.id is not null then outbox.live_status(e.claimed_by, e.available_at, e.waits)
            else outbox.ended_status(d.status) end as status,
       case when e.id is null or e.claimed_by is not null then null
            when l.paused_at is not null then 'lane paused'
            when l.held_at is not null then 'lane held'
            when e.available_at > clock_timestamp() then
                case e.waits when 1 then 'backoff' when 2 then 'snooze' else 'send_after' end
            else 'dispatcher' end as waiting_for,
       j.created_at, outbox.id_time(j.id) as accepted_at, j.send_after, j.expires_at,
       e.available_at as due_at,
       case when e.id is null then d.finished_at end as finished_at,
       coalesce(e.series, d.series) as series,
       coalesce(e.attempt, d.attempt) as attempts,
       coalesce(e.max_attempts, 0) as max_attempts,
       last.error_class as last_error_class, last.error_code as last_error_code,
       last.error_message as last_error,
       r.status as receipt_status, r.at as receipt_at,
       j.resend_of, j.list_job_id, j.id
from outbox.job as j
left join outbox.entry as e on e.id = j.id
left join outbox.lane as l on l.lane_id = e.lane_id
left join lateral (select d.status, d.finished_at, d.series, d.attempt from outbox.delivery as d
                   where d.id = j.id and d.terminal and not d.late order by d.series desc limit 1) as d on true
left join lateral (select d.error_class, d.error_code, d.error_message from outbox.delivery as d
                   where d.id = j.id and not d.late order by d.lease_no desc limit 1) as last on true
left join lateral (select r.status, r.at from outbox.receipt as r
                   where r.id = j.id order by r.receipt_id desc limit 1) as r on true;
comment on view outbox.notification is 'One row for each job, the waiting ones too.';

create view outbox.notification_history as
select h.job_id, h.status, h.at, h.attempt, h.error, h.tenant_id, h.series, h.step, h.id
from (
    select j.job_id, outbox.accepted_status(j.send_after, j.expires_at, outbox.id_time(j.id)) as status,
           outbox.id_time(j.id) as at, 0 as attempt, null::text as error, j.tenant_id, 1::smallint as series, 0 as step, j.id
    from outbox.job as j
    where j.expires_at is null or j.expires_at > outbox.id_time(j.id)
    union all
    select j.job_id, 'pending', j.send_after, 0, null, j.tenant_id, 1::smallint, 1, j.id
    from outbox.job as j
    where j.send_after > outbox.id_time(j.id) and j.send_after <= clock_timestamp()
      and not exists (select from outbox.delivery as d where d.id = j.id and d.finished_at < j.send_after)
    union all
    select j.job_id, 'pending', a.at, 0, null, j.tenant_id, (a.detail ->> 'series')::smallint, 2, j.id
    from outbox.operator_action as a join outbox.job as j on j.id = a.id
    where a.action in ('retry', 'replay', 'promote')
    union all
    select j.job_id, 'processing', d.started_at, d.attempt, null, d.tenant_id, d.series, 3, j.id
    from outbox.delivery as d join outbox.job as j on j.id = d.id
    where d.started_at is not null and not d.late
    union all
    select j.job_id, case d.error_class when 'held' then 'pending' when 'snoozed' then 'scheduled'
                                        else outbox.ended_status(d.status) end,
           d.finished_at, d.attempt, d.error_message, d.tenant_id, d.series, 4, j.id
    from outbox.delivery as d join outbox.job as j on j.id = d.id
    where not d.late
    union all
    select j.job_id, 'pending', d.next_attempt_at, d.attempt, null, d.tenant_id, d.series, 5, j.id
    from outbox.delivery as d join outbox.job as j on j.id = d.id
    where not d.late and d.status = 'RETRYING' and d.next_attempt_at > d.finished_at
      and d.next_attempt_at <= clock_timestamp()
      and not exists (select from outbox.delivery as n where n.id = d.id and n.lease_no > d.lease_no
                      and not n.late and n.started_at is null and n.finished_at < d.next_attempt_at)
    union all
    select j.job_id, 'processing', e.claimed_at, e.attempt, null, j.tenant_id, e.series, 6, j.id
    from outbox.entry as e join outbox.job as j on j.id = e.id
    where e.claimed_by is not null
) as h;
comment on view outbox.notification_history is 'Every change of a job''s state; order by job_id, series, at, step.';

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

create view outbox.queue_now as
select l.queue, l.tenant_id,
       count(*) filter (where e.claimed_by is null and e.available_at <= clock_timestamp()) as waiting,
       count(*) filter (where e.claimed_by is not null) as active,
       count(*) filter (where e.claimed_by is null and e.available_at > clock_timestamp()) as delayed,
       min(e.available_at) filter (where e.claimed_by is null and e.available_at <= clock_timestamp()) as oldest_waiting_at
from outbox.entry as e
join outbox.lane as l on l.lane_id = e.lane_id
group by l.queue, l.tenant_id;

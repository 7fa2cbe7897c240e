-- Store a batch of outcomes: end or move each entry whose lease still stands, write its history,
-- its dead letter and the lane's counts. Input: a JSON list of outcomes and one of histograms.
-- The fence is (id, lease_no, claimed_by). An outcome whose lease has moved on changes nothing but
-- leaves a row marked late; one that was recorded before (the commit's reply was lost) leaves
-- nothing at all. Returns only what differs from the expected (late, cancelled, recorded before), and
-- what ended at the head of an ordering_key, which has another head now. Where the recipient was erased
-- meanwhile, what is stored names nobody: hashes stay.
with o as materialized (
    select o.*
    from json_to_recordset(%(outcomes)s::json) as o(
        id bigint, lease_no int, epoch bigint, op text, status text, series smallint, attempt smallint,
        next_attempt smallint, next_lane int, next_at timestamptz, waits smallint, tenant_id text,
        started_at timestamptz, finished_at timestamptz, duration_ms int, provider text,
        provider_message_id text, recipient text, subject text, locale text, content_sha256 text, content text,
        template_version int, error_class text, error_code text, error_message text, dead_reason text)
), gone as (
    delete from outbox.entry as e
    using o
    where e.id = any(array(select id from o)) and e.id = o.id
      and e.lease_no = o.lease_no and e.claimed_by = o.epoch
      and (o.op = 'end' or e.cancel)
    returning e.id, e.lease_no, e.lane_id, o.op <> 'end' as cancelled, e.ordering_id, e.erased
), moved as (
    update outbox.entry as e
    set claimed_by = null,
        claimed_at = null,
        lease_until = null,
        attempt = o.next_attempt,
        available_at = coalesce(o.next_at, e.available_at),
        waits = coalesce(o.waits, e.waits),
        -- The lane's row is held until this is committed; an idle one may be gone (outbox.prune_lanes).
        lane_id = case when o.next_lane is null then e.lane_id
                       else coalesce((select l.lane_id from outbox.lane as l where l.lane_id = o.next_lane for key share),
                                     e.lane_id) end,
        crashes = case when o.op = 'release' then e.crashes else 0 end
    from o
    where e.id = any(array(select id from o where op <> 'end')) and e.id = o.id
      and e.lease_no = o.lease_no and e.claimed_by = o.epoch
      and o.op <> 'end' and not e.cancel
    returning e.id, e.lease_no, e.lane_id
), judged as materialized (
    select o.*, coalesce(g.lane_id, m.lane_id) as lane_id, g.id is null and m.id is null as late,
           coalesce(g.cancelled, false) as cancelled, g.ordering_id,
           case when g.cancelled then 'CANCELLED' else o.status end as said,
           case when g.id is not null then g.erased when m.id is null then outbox.is_erased(o.id) else false end as erased,
           case when g.id is null and m.id is null
                -- A scalar, so that it can never become a hashed scan over all of history. A row of the
                -- rescuer's is no repetition, also where a process took back what it had claimed itself.
                -- (`on conflict do nothing` would do for late rows, but costs every row a fifth more WAL.)
                then coalesce((select true from outbox.delivery as d
                               where d.id = o.id and d.lease_no = o.lease_no
                                 and (d.late or d.epoch = o.epoch and d.error_code is distinct from 'lease.lost')
                               limit 1), false)
                else false end as repeated
    from o
    left join gone as g on g.id = o.id and g.lease_no = o.lease_no
    left join moved as m on m.id = o.id and m.lease_no = o.lease_no
), history as (
    insert into outbox.delivery (id, started_at, finished_at, next_attempt_at, epoch, recipient_hash, lease_no, lane_id,
        duration_ms, template_version, series, attempt, late, terminal, status, tenant_id, provider,
        provider_message_id, recipient, subject, locale, error_class, error_code, error_message, content_sha256, content)
    select j.id, j.started_at, j.finished_at, case when not j.late and not j.cancelled and j.op = 'again' then j.next_at end,
        j.epoch, case when j.recipient is not null then outbox.address_hash(j.recipient) end, j.lease_no, j.lane_id,
        j.duration_ms, j.template_version, j.series, j.attempt, j.late,
        j.op = 'end' or j.cancelled, j.said, j.tenant_id, j.provider, case when not j.erased then j.provider_message_id end,
        case when not j.erased then j.recipient end, case when not j.erased then j.subject end, j.locale, j.error_class,
        j.error_code, case when j.erased and j.error_message is not null then 'erased' else j.error_message end,
        decode(j.content_sha256, 'hex'), case when not j.erased then decode(j.content, 'base64') end
    from judged as j
    where (j.op <> 'release' or j.cancelled) and not j.repeated
      -- A late one may come when the job is no longer kept: then there is no partition for its history.
      and (not j.late or (select true from outbox.job as f where f.id = j.id))
), dead as (
    insert into outbox.dead_letter (failed_at, id, job_id, series, attempts, tenant_id, queue, reason, error_class,
        error_code, error_message, test, job)
    select j.finished_at, j.id, f.job_id, j.series, j.attempt, f.tenant_id, f.queue, j.dead_reason, j.error_class,
        j.error_code, case when j.erased then 'erased' else coalesce(j.error_message, j.error_code, 'failed') end, f.test,
        -- The job may still read here as it was before.
        case when j.erased then jsonb_build_object('job_id', f.job_id, 'erased', true)
             else outbox.whole_job(f.job_id, f.created_at, f.job) end
    from judged as j
    cross join lateral (select f.job_id, f.tenant_id, f.queue, f.created_at, f.test, f.job
                        from outbox.job as f where f.id = j.id offset 0) as f
    where j.dead_reason is not null and not j.late
), counted as (
    insert into outbox.stat_second (at, epoch, lane_id, duration_ms_sum, sent, failed, retrying, expired, cancelled,
        late, ids, lease_nos, pickup_ms_sum, durations, pickups, arrivals, attempts)
    select date_trunc('second', clock_timestamp()), %(epoch)s, c.lane_id, c.duration_ms_sum, c.sent, c.failed,
        c.retrying, c.expired, c.cancelled, c.late, c.ids, c.lease_nos, coalesce(h.pickup_ms_sum, 0), h.durations, h.pickups, h.arrivals, h.attempts
    from (select coalesce(j.lane_id, 0) as lane_id,
                 coalesce(sum(j.duration_ms), 0) as duration_ms_sum,
                 count(*) filter (where j.said = 'SENT' and not j.late) as sent,
                 count(*) filter (where j.said = 'FAILED' and not j.late) as failed,
                 count(*) filter (where j.said = 'RETRYING' and not j.late) as retrying,
                 count(*) filter (where j.said = 'EXPIRED' and not j.late) as expired,
                 count(*) filter (where j.said = 'CANCELLED' and not j.late) as cancelled,
                 count(*) filter (where j.late) as late,
                 array_agg(j.id) filter (where not j.late) as ids,
                 array_agg(j.lease_no) filter (where not j.late) as lease_nos
          from judged as j where (j.op <> 'release' or j.cancelled) and not j.repeated group by 1) as c
    left join json_to_recordset(%(histograms)s::json) as h(
        lane_id int, pickup_ms_sum bigint, durations int[], pickups int[], arrivals int[], attempts jsonb)
      on h.lane_id = c.lane_id
)
select j.id, j.lease_no, j.late, j.cancelled, j.repeated, j.ordering_id is not null as ordered, j.erased
from judged as j
where j.late or j.cancelled or j.erased or j.ordering_id is not null

-- Take back entries whose dispatcher was fenced, or whose lease has run out: the try is given back,
-- crashes and lease_no grow (a zombie's late outcome can then match nothing), the third crash ends
-- the series. Sequential scan on purpose: an index on claimed_by would end the claims' HOT updates.
with lost as materialized (
    select e.id, e.lane_id, e.lease_no, e.series, e.attempt, e.crashes, e.claimed_at, e.claimed_by, e.cancel
    from outbox.entry as e
    where e.claimed_by is not null
      and (e.claimed_by = any(%(epochs)s::bigint[]) or e.lease_until < clock_timestamp())
    limit %(limit)s
    for update skip locked
), gone as (
    delete from outbox.entry as e
    using lost as l
    where e.id = any(array(select id from lost)) and e.id = l.id and (l.crashes >= 2 or l.cancel)
    returning e.id, l.cancel
), back as (
    update outbox.entry as e
    set claimed_by = null,
        claimed_at = null,
        lease_until = null,
        lease_no = e.lease_no + 1,
        attempt = e.attempt - 1,
        crashes = e.crashes + 1,
        available_at = clock_timestamp()
    from lost as l
    where e.id = any(array(select id from lost)) and e.id = l.id and l.crashes < 2 and not l.cancel
    returning e.id
), judged as materialized (
    select l.*, g.id is not null as ended, coalesce(g.cancel, false) as cancelled, j.tenant_id, j.queue, j.job_id,
           j.created_at, j.test, j.job
    from lost as l
    left join gone as g on g.id = l.id
    cross join lateral (select j.tenant_id, j.queue, j.job_id, j.created_at, j.test, j.job
                        from outbox.job as j where j.id = l.id offset 0) as j
), history as (
    insert into outbox.delivery (id, started_at, finished_at, next_attempt_at, epoch, lease_no, series, attempt,
        terminal, status, tenant_id, lane_id, error_class, error_code, error_message)
    select j.id, j.claimed_at, clock_timestamp(), case when not j.ended then clock_timestamp() end, %(epoch)s,
        j.lease_no, j.series, j.attempt, j.ended,
        case when j.cancelled then 'CANCELLED' when j.ended then 'FAILED' else 'RETRYING' end, j.tenant_id, abs(j.lane_id), 'temporary',
        'lease.lost', 'the dispatcher that had claimed it died or lost its lease'
    from judged as j
    on conflict (id, lease_no, late) do nothing
), dead as (
    insert into outbox.dead_letter (id, job_id, series, attempts, tenant_id, queue, reason, error_class, error_code,
        error_message, test, job)
    select j.id, j.job_id, j.series, j.attempt, j.tenant_id, j.queue, 'exhausted', 'temporary', 'lease.lost',
        'three dispatchers died while they had it', j.test, outbox.whole_job(j.job_id, j.created_at, j.job)
    from judged as j where j.ended and not j.cancelled
), counted as (
    insert into outbox.stat_second (at, epoch, lane_id, rescued, failed, cancelled, ids, lease_nos)
    select date_trunc('second', clock_timestamp()), %(epoch)s, j.lane_id, count(*),
           count(*) filter (where j.ended and not j.cancelled), count(*) filter (where j.cancelled), array_agg(j.id),
           array_agg(j.lease_no)
    from judged as j group by j.lane_id
)
select j.id, j.lane_id, j.claimed_by from judged as j

-- End what has waited in a held lane for longer than hold_max_s: into the dead letters, with the
-- reason of the hold. Nothing waits for ever. (Negative: followers of an ordering_key.)
with over as materialized (
    select e.id, e.lane_id, e.lease_no, e.series, e.attempt, l.hold_code, l.hold_reason
    from outbox.lane as l
    cross join lateral (
        select e.id, e.lane_id, e.lease_no, e.series, e.attempt
        from outbox.entry as e
        where e.lane_id = any(array[l.lane_id, -l.lane_id]) and e.claimed_by is null
          and greatest(e.available_at, l.held_at) < statement_timestamp() - make_interval(secs => %(hold_max_s)s)
        limit %(limit)s
        for update skip locked) as e
    where l.held_at < statement_timestamp() - make_interval(secs => %(hold_max_s)s)
    limit %(limit)s
), gone as (
    delete from outbox.entry as e
    where e.id = any(array(select id from over))
), judged as materialized (
    select o.*, j.tenant_id, j.queue, j.job_id, j.created_at, j.test, j.job
    from over as o
    cross join lateral (select j.tenant_id, j.queue, j.job_id, j.created_at, j.test, j.job
                        from outbox.job as j where j.id = o.id offset 0) as j
), history as (
    insert into outbox.delivery (id, finished_at, epoch, lease_no, series, attempt, terminal, status, tenant_id, lane_id,
        error_class, error_code, error_message)
    select j.id, clock_timestamp(), %(epoch)s, j.lease_no + 1, j.series, j.attempt, true, 'FAILED', j.tenant_id, abs(j.lane_id),
        'configuration', j.hold_code, j.hold_reason
    from judged as j
), dead as (
    insert into outbox.dead_letter (id, job_id, series, attempts, tenant_id, queue, reason, error_class, error_code,
        error_message, test, job)
    select j.id, j.job_id, j.series, j.attempt, j.tenant_id, j.queue, 'exhausted', 'configuration', j.hold_code,
        coalesce(j.hold_reason, 'held for too long'), j.test, outbox.whole_job(j.job_id, j.created_at, j.job)
    from judged as j
), counted as (
    insert into outbox.stat_second (at, epoch, lane_id, failed, ids, lease_nos)
    select date_trunc('second', clock_timestamp()), %(epoch)s, abs(j.lane_id), count(*), array_agg(j.id),
        array_agg(j.lease_no + 1)
    from judged as j group by abs(j.lane_id)
)
select count(*) from over

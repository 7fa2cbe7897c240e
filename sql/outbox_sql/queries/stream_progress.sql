-- What running attempts last said of their progress, as far as one snapshot sees it and an older one does not. In
-- the order of history (stream_outcomes.sql): behind what began this attempt, before its outcome. A report that
-- another has replaced, or whose attempt is over, is nobody's any more.
select p.id, date_trunc('second', p.at) as second, r.rank, p.at, 'PROGRESS' as status, false as terminal,
       j.job_id, j.tenant_id, j.queue, j.channel, j.template_code, j.user_id, j.event_id, j.campaign_id, j.test, e.series, e.attempt,
       null::text as provider, null::text as error_class, null::text as error_code, null::int as duration_ms,
       null::timestamptz as next_attempt_at, p.done, p.total, p.note
from outbox.progress as p
join outbox.entry as e on e.id = p.id and e.lease_no = p.lease_no and e.claimed_by is not null
cross join lateral (select 3 * p.lease_no::bigint - 1 as rank) as r
cross join lateral (select j.* from outbox.job as j where j.id = p.id offset 0) as j
where p.at >= %(from_at)s
  and pg_visible_in_snapshot(p.xid, %(seen)s::pg_snapshot) and not pg_visible_in_snapshot(p.xid, %(before)s::pg_snapshot)
  and (date_trunc('second', p.at), p.id, r.rank) > (%(after_second)s, %(after_id)s, %(after_rank)s)
order by second, p.id, r.rank
limit %(rows_max)s

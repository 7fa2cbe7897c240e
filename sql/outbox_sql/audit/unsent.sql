-- What was accepted a while ago and is not sent yet, and why: oldest first.
-- param older_than_s int '3600' accepted longer ago than this
-- param tenant text '*' whose jobs; * for every tenant
-- param rows_max int '1000' at most so many rows
\if :{?older_than_s} \else \set older_than_s '3600' \endif
\if :{?tenant} \else \set tenant '*' \endif
\if :{?rows_max} \else \set rows_max '1000' \endif
select n.accepted_at, date_trunc('second', now() - n.accepted_at) as age, n.tenant_id, n.job_id, n.user_id, n.queue,
       n.template_code, n.campaign_id, n.status, n.due_at, n.expires_at, n.attempts,
       case n.waiting_for
           when 'lane paused' then format('paused by %s', n.paused_by)
           when 'lane held' then format('held: %s, %s', n.hold_code, n.hold_reason)
           when 'send_after' then 'its send_after lies ahead'
           when 'backoff' then 'the pause before the next attempt'
           when 'snooze' then 'put off by its handler'
           when 'ordering head' then 'another job of its ordering_key goes first'
           when 'destination' then 'the rate or the breaker of where it goes'
           when 'destination paused' then 'where it goes is paused'
           when 'no handler' then 'no dispatcher has its handler'
           when 'dispatcher' then 'due, but no dispatcher has taken it'
           else 'an attempt is running'
       end as why,
       n.stopped_at, n.last_error_code, n.last_error
from outbox.notification_waiting as n
where n.id < outbox.id_floor(now() - make_interval(secs => :'older_than_s'::int))
  and :'tenant'::text in ('*', n.tenant_id)
order by n.id
limit :'rows_max'::int;

-- Which failed jobs were given another chance, by whom, and what came of it: newest first.
-- param tenant text '*' whose jobs; * for every tenant
-- param days int '90' replayed in the last so many days
-- param rows_max int '1000' at most so many rows
\if :{?tenant} \else \set tenant '*' \endif
\if :{?days} \else \set days '90' \endif
\if :{?rows_max} \else \set rows_max '1000' \endif
select r.replayed_at, r.replayed_by, r.why, r.run_id, r.action, r.tenant_id, r.job_id, r.user_id, r.queue, r.template_code, r.series,
       r.failed_at, r.failed_attempts, r.reason, r.error_code, r.error_message,
       coalesce(lower(r.outcome), 'not over yet') as outcome, r.outcome_at
from outbox.notification_replay as r
where r.replayed_at >= now() - make_interval(days => :'days'::int)
  and :'tenant'::text in ('*', r.tenant_id)
order by r.replayed_at desc, r.id desc
limit :'rows_max'::int;

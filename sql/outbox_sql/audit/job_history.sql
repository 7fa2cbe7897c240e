-- Every change of one job's state, oldest first: when it was accepted, due, taken, and what came of it.
-- param job_id uuid 'f4d7c0c3-7bd2-4d5b-9891-93f6ac0242ef' the job
-- param tenant text 'default' whose job it is
\if :{?job_id} \else \set job_id 'f4d7c0c3-7bd2-4d5b-9891-93f6ac0242ef' \endif
\if :{?tenant} \else \set tenant 'default' \endif
select h.at, h.status, h.series, h.attempt, h.error
from outbox.notification_history as h
where h.id = outbox.id_of(:'tenant'::text, :'job_id'::uuid)
order by h.series, h.at, h.step;

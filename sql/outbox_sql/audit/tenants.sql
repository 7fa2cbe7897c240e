-- Who uses the service how much: jobs by tenant, and how they stand now. Largest first.
-- param days int '30' jobs accepted in the last so many days
\if :{?days} \else \set days '30' \endif
select n.tenant_id, count(*) as jobs,
       round(100.0 * count(*) / sum(count(*)) over (), 1) as percent,
       count(*) filter (where n.status = 'sent') as sent,
       count(*) filter (where n.status = 'failed') as failed,
       count(*) filter (where n.status = 'expired') as expired,
       count(*) filter (where n.status = 'cancelled') as cancelled,
       count(*) filter (where n.due_at is not null) as not_over,
       count(distinct n.user_id) as users, sum(n.attempts) as attempts,
       min(n.accepted_at) as first_accepted_at, max(n.accepted_at) as last_accepted_at
from outbox.notification as n
where n.id >= outbox.id_floor(now() - make_interval(days => :'days'::int))
group by n.tenant_id
order by jobs desc, n.tenant_id;

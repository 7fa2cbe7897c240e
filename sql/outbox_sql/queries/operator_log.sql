-- What operators did, newest first. Run it unprepared.
select a.action_id, a.at, a.actor, a.action, a.tenant_id, a.id, a.detail::text as detail,
       (select j.job_id from outbox.job as j where j.id = a.id) as job_id
from outbox.operator_action as a
where (%(tenant)s::text is null or a.tenant_id = %(tenant)s)
  and (%(actor)s::text is null or a.actor = %(actor)s)
  and (%(action)s::text is null or a.action = %(action)s)
  and (%(refused)s::boolean is null or a.detail ? 'refused' = %(refused)s)
  and (%(before)s::bigint is null or a.action_id < %(before)s)
order by a.action_id desc
limit %(limit)s

-- A page of a user's in-app messages, newest first. Run it unprepared.
select m.message_id, j.job_id, m.subject, m.body, m.data::text as data, m.created_at, m.read_at
from outbox.inbox_message as m
left join outbox.job as j on j.id = m.id
where m.tenant_id = %(tenant)s and m.user_id = %(user_id)s
  and (not %(unread)s or m.read_at is null)
  and (%(before)s::bigint is null or m.message_id < %(before)s)
order by m.message_id desc
limit %(limit)s

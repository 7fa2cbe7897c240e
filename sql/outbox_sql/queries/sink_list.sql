-- A page of what was caught instead of sent, newest first. Run it unprepared.
select m.message_id, m.tenant_id, m.caught_by, m.channel, m.job_id, m.recipient, m.subject, m.body,
       m.headers::text as headers, m.created_at
from outbox.sink_message as m
where (%(tenant)s::text is null or m.tenant_id = %(tenant)s)
  and (%(channel)s::text is null or m.channel = %(channel)s)
  and (%(recipient)s::text is null or m.recipient = %(recipient)s)
  and (%(job_id)s::uuid is null or m.job_id = %(job_id)s)
  and (%(message_id)s::bigint is null or m.message_id = %(message_id)s)
  and (%(before)s::bigint is null or m.message_id < %(before)s)
order by m.message_id desc
limit %(limit)s

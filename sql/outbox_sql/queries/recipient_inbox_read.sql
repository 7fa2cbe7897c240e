-- Mark a message as read; reading it again changes nothing.
update outbox.inbox_message as m
set read_at = coalesce(m.read_at, clock_timestamp())
where m.tenant_id = %(tenant)s and m.user_id = %(user_id)s and m.message_id = %(message_id)s
returning m.message_id, (select j.job_id from outbox.job as j where j.id = m.id) as job_id, m.subject, m.body,
    m.data::text as data, m.created_at, m.read_at

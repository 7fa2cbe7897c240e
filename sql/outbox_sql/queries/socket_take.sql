-- Messages for the sockets of this API process that it has not had yet.
update outbox.socket_message as m
set handed_at = clock_timestamp()
where m.process_id = %(process_id)s and m.handed_at is null
returning m.message_id, m.tenant_id, m.user_id, m.job_id, m.body

-- What became of messages: acknowledged by a socket, or there was no socket to take them.
with gone as (
    delete from outbox.socket_message as m where m.message_id = any(%(refused)s::bigint[])
), stale as (
    delete from outbox.socket_message as m
    where m.process_id = %(process_id)s and m.created_at < clock_timestamp() - interval '10 minutes'
)
update outbox.socket_message as m
set taken_at = clock_timestamp()
where m.message_id = any(%(taken)s::bigint[]) and m.process_id = %(process_id)s

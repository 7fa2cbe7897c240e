-- Attempts that are over: nobody acknowledges them any more.
delete from outbox.socket_message as m where m.attempt_id = any(%(attempts)s::uuid[])

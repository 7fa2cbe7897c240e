-- How far attempts are that wait for a socket: acknowledged, handed to a socket, or gone (no row).
select m.attempt_id, bool_or(m.taken_at is not null) as taken, bool_or(m.handed_at is not null) as handed
from outbox.socket_message as m
where m.attempt_id = any(%(attempts)s::uuid[])
group by m.attempt_id

-- Hand messages to every API process that lives and has a socket of their user open. Returns those that some got.
with told as (
    insert into outbox.socket_message (attempt_id, job_id, process_id, tenant_id, user_id, body)
    select m.attempt_id, m.job_id, s.process_id, s.tenant_id, s.user_id, m.body
    from json_to_recordset(%(messages)s::json) as m(attempt_id uuid, job_id uuid, tenant_id text, user_id text, body text)
    join outbox.socket as s on s.tenant_id = m.tenant_id and s.user_id = m.user_id
    join outbox.api_process as p on p.process_id = s.process_id
        and p.heartbeat_at > clock_timestamp() - make_interval(secs => %(silent_s)s)
    returning attempt_id
)
select distinct t.attempt_id from told as t

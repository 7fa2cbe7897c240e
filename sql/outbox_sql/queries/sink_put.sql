-- What the demo's own mail server or webhook receiver has caught.
insert into outbox.sink_message (tenant_id, caught_by, channel, job_id, recipient, subject, body, headers)
values (%(tenant)s, %(caught_by)s, %(channel)s, %(job_id)s, %(recipient)s, %(subject)s, %(body)s, %(headers)s::jsonb)

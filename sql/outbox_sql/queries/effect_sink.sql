-- What the sink provider kept, in the transaction that records its delivery.
insert into outbox.sink_message (tenant_id, caught_by, channel, job_id, recipient, subject, body, headers, test)
select r.tenant_id, 'sink', r.channel, j.job_id, r.recipient, r.subject, r.body, r.headers_json::jsonb, j.test
from json_to_recordset(%(rows)s::json) as r(
    id bigint, tenant_id text, channel text, recipient text, subject text, body text, headers_json text)
cross join lateral (select j.job_id, j.test from outbox.job as j where j.id = r.id offset 0) as j

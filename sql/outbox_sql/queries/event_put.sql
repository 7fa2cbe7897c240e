-- Store an event, unless its id is known; what its content hashes to.
insert into outbox.event (tenant_id, event_id, event_type, user_id, data, occurred_at, content_sha256)
values (%(tenant)s, %(event_id)s, %(event_type)s, %(user_id)s, %(data)s::jsonb, %(occurred_at)s,
    sha256(convert_to(%(content)s::jsonb::text, 'UTF8')))
on conflict (tenant_id, event_id) do nothing
returning accepted_at

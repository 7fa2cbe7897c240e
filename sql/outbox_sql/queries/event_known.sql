-- What a known event made, and whether this is the same one.
select e.content_sha256 = sha256(convert_to(%(content)s::jsonb::text, 'UTF8')) as same, e.jobs::text[], e.accepted_at
from outbox.event as e
where e.tenant_id = %(tenant)s and e.event_id = %(event_id)s

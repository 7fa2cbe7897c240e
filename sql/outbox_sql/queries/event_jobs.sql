-- Note the jobs that an event has made.
update outbox.event as e
set jobs = %(job_ids)s::uuid[]
where e.tenant_id = %(tenant)s and e.event_id = %(event_id)s

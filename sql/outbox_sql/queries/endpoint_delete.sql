-- Take an endpoint away.
delete from outbox.endpoint as e
where e.endpoint_id = %(endpoint_id)s and (%(tenant)s::text is null or e.tenant_id = %(tenant)s)
returning e.tenant_id

-- Forget a schedule. The jobs that it has made stay.
delete from outbox.schedule as s where s.tenant_id = %(tenant)s and s.name = %(name)s

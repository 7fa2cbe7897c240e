-- Take a provider away.
delete from outbox.provider as p
where p.provider_id = %(provider_id)s and (%(tenant)s::text is null or p.tenant_id = %(tenant)s)
returning p.tenant_id

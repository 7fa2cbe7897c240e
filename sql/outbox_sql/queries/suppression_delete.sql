-- Let an address receive again.
delete from outbox.suppression as s
where s.tenant_id = %(tenant)s and s.channel = %(channel)s and s.address = %(address)s

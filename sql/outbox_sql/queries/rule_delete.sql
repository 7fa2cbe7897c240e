-- Delete a rule. Jobs that it made stay.
delete from outbox.rule as r
where r.rule_id = %(rule_id)s and (%(tenant)s::text is null or r.tenant_id = %(tenant)s)

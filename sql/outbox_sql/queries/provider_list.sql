-- Providers, in the order in which they are asked.
select p.provider_id, p.tenant_id, p.channel, p.kind, p.name, p.preference, p.config::text,
       p.credentials, p.key_id, p.enabled, p.receipts, p.created_at, p.updated_at
from outbox.provider as p
where (%(tenant)s::text is null or p.tenant_id = %(tenant)s)
  and (%(channel)s::text is null or p.channel = %(channel)s)
  and (%(provider_id)s::uuid is null or p.provider_id = %(provider_id)s)
order by p.tenant_id, p.channel, p.preference, p.name
limit 10000

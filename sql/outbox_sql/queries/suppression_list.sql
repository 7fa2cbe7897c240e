-- A page of addresses that get nothing more, in the order of their keys.
select s.tenant_id, s.channel, s.address, s.code, s.reason, s.created_at, s.expires_at
from outbox.suppression as s
where (%(tenant)s::text is null or s.tenant_id = %(tenant)s)
  and (%(channel)s::text is null or s.channel = %(channel)s)
  and (%(address)s::text is null or s.address = %(address)s)
  and (s.expires_at is null or s.expires_at > clock_timestamp())
  and (s.tenant_id, s.channel, s.address) > (%(after_tenant)s, %(after_channel)s, %(after_address)s)
order by s.tenant_id, s.channel, s.address
limit %(limit)s

-- The tenants that were set up.
select t.tenant_id, t.default_locale, t.timezone, t.sender, t.phone_region, t.own_providers, t.send_windows,
       t.error_rules, t.created_at
from outbox.tenant as t
where %(tenant)s::text is null or t.tenant_id = %(tenant)s
order by t.tenant_id
limit 10000

-- The tenants, the default one among them.
insert into outbox.tenant (tenant_id)
select case n when 1 then 'default' else 'tenant-' || n end
from generate_series(1, %(tenants)s) as n
on conflict do nothing

-- This API process has a socket of the user open.
insert into outbox.socket (tenant_id, user_id, process_id)
values (%(tenant)s, %(user)s, %(process_id)s)
on conflict (tenant_id, user_id, process_id) do nothing

-- Write down who did what.
insert into outbox.operator_action (actor, action, tenant_id, detail)
values (%(actor)s, %(action)s, %(tenant)s, %(detail)s::jsonb)

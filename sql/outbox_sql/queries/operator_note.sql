-- Write down who did what, unless this transaction has changed nothing, or has said so itself.
insert into outbox.operator_action (actor, action, tenant_id, detail)
select %(actor)s, %(action)s, %(tenant)s, %(detail)s::jsonb
where pg_current_xact_id_if_assigned() is not null
  and not exists (
      select from (select a.xmin as made_by from outbox.operator_action as a order by a.action_id desc limit 200) as r
      where r.made_by::text::bigint = pg_current_xact_id_if_assigned()::text::bigint %% 4294967296)

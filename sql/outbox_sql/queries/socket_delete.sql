-- It has none of the user's open any more; user null: it has none at all.
delete from outbox.socket as s
where s.process_id = %(process_id)s
  and (%(user)s::text is null or s.tenant_id = %(tenant)s and s.user_id = %(user)s)

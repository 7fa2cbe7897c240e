-- The database's own random secret, one for all processes: what the dashboard's cookies are sealed with follows from it.
select s.address_key from outbox.setting as s

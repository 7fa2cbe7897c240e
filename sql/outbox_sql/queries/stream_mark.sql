-- What can be seen now.
select pg_current_snapshot()::text as snapshot

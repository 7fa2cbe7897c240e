-- Whether the schema is there and has room for tomorrow's jobs.
select outbox.partition_days_left() > 0
   and exists (select from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
               where n.nspname = 'outbox' and p.proname = 'enqueue_many_v1') as ready

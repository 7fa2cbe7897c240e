-- Say that this API process lives, and learn how far `post` has come.
insert into outbox.api_process as p (process_id, name, version, schema_revision, pid)
values (%(process_id)s, %(name)s, %(version)s, %(schema_revision)s, %(pid)s)
on conflict (process_id) do update set heartbeat_at = clock_timestamp()
returning (outbox.schema_revisions()).post

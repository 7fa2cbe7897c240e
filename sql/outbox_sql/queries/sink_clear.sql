-- Empty the sink.
delete from outbox.sink_message as m where %(tenant)s::text is null or m.tenant_id = %(tenant)s

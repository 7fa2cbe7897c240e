-- Whether there is room for tomorrow's jobs, and how far the schema has come.
select outbox.partition_days_left() > 0 as has_room, r.pre, r.post
from outbox.schema_revisions() as r

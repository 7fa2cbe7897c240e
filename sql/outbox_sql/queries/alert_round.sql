-- Take the round, unless it is not due or somebody else makes it; tell what was looked at before.
update outbox.alert_round as r
set next_at = clock_timestamp() + make_interval(secs => %(every_s)s),
    dead_letter_seen = coalesce((select max(d.dead_letter_id) from outbox.dead_letter as d), 0)
from (select a.dead_letter_seen from outbox.alert_round as a
      where a.next_at <= clock_timestamp() for update skip locked) as before
returning before.dead_letter_seen

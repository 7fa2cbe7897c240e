-- Take the right to probe a held lane: one dispatcher in the fleet gets it, and no other before that
-- probe has ended (or its lease has); the next waits twice as long.
update outbox.lane as l
set probe_s = least(l.probe_s * 2, 3600),
    probe_at = clock_timestamp() + make_interval(secs => least(l.probe_s * 2, 3600)),
    probe_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
where l.lane_id = %(lane_id)s and l.held_at is not null and l.paused_at is null and l.probe_at <= clock_timestamp()
  and (l.probe_until is null or l.probe_until <= clock_timestamp())
returning l.probe_at

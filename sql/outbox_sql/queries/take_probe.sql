-- Take the right to probe a held lane: one dispatcher gets it, the next probe waits twice as long.
update outbox.lane as l
set probe_s = least(l.probe_s * 2, 3600),
    probe_at = clock_timestamp() + make_interval(secs => least(l.probe_s * 2, 3600))
where l.lane_id = %(lane_id)s and l.held_at is not null and l.paused_at is null and l.probe_at <= clock_timestamp()
returning l.probe_at

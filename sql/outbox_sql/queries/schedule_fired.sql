-- Write down what a fire came to, and when the next one is.
update outbox.schedule as s
set next_at = %(next_at)s, fired_at = coalesce(%(fired_at)s, s.fired_at),
    last_job_id = coalesce(%(job_id)s, s.last_job_id), fires = s.fires + %(fires)s, missed = s.missed + %(missed)s,
    last_error = case when %(error)s::text is not null then %(error)s
                      when %(fires)s > 0 then null else s.last_error end,
    last_error_at = case when %(error)s::text is not null then clock_timestamp()
                         when %(fires)s > 0 then null else s.last_error_at end
where s.schedule_id = %(schedule_id)s

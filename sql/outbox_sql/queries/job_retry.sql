-- A new series for a failed job; null dead_letter: whichever it has.
select outbox.retry_job(%(id)s, %(actor)s, %(action)s, %(dead_letter)s::bigint)

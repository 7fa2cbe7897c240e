-- Delete ended jobs with their history and keys, oldest first; returns how many.
select outbox.clean_jobs(%(queue)s, %(tenant)s, %(status)s, %(older_than_s)s, %(limit)s, %(actor)s,
    %(keep_last)s::int)

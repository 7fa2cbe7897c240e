-- Pause or resume a queue, or one tenant's lane of it: the version that dispatchers must have seen.
select outbox.set_paused(%(queue)s, %(tenant)s::text, %(paused)s, %(actor)s, %(reason)s)

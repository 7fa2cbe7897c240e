-- 1 for a queue that has a handler here, or has had a job that the caller may see; else 0. What a
-- typo names must make no queue.
select (exists (select from outbox.handler as h where h.name = %(queue)s)
        or exists (select from outbox.lane as l where l.queue = %(queue)s))::int

-- The queues that the caller may see, all or one: those that have a handler here, or ever had a job.
select h.name from outbox.handler as h
where %(queue)s::text is null or h.name = %(queue)s
union
select l.queue from outbox.lane as l
where (%(queue)s::text is null or l.queue = %(queue)s)
  and (%(tenant)s::text is null or l.tenant_id = %(tenant)s)
order by 1

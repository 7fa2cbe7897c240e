-- A lane for each tenant and queue.
select outbox.lane_of(t.tenant_id, q.queue) from outbox.tenant as t cross join unnest(%(queues)s::text[]) as q(queue)

-- Live jobs that a filter names, a slice at a time by internal id. Run it unprepared.
select e.id, e.claimed_by is not null as processing
from outbox.entry as e
join outbox.job as j on j.id = e.id
where e.id > %(after)s
  and (%(tenant)s::text is null or j.tenant_id = %(tenant)s)
  and (%(queue)s::text is null or j.queue = %(queue)s)
  and (%(user_id)s::text is null or j.user_id = %(user_id)s)
  and (%(event_id)s::text is null or j.event_id = %(event_id)s)
  and (%(campaign_id)s::text is null or j.campaign_id = %(campaign_id)s)
  and (%(template_code)s::text is null or j.template_code = %(template_code)s)
order by e.id
limit %(limit)s

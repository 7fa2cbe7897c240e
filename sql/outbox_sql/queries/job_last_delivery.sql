-- The last thing that history says of a job.
select d.status, d.provider, d.template_version, d.recipient, d.error_class, d.error_code, d.error_message,
       d.finished_at, d.next_attempt_at
from outbox.api_notification_delivery as d
where d.id = %(id)s and not d.late
order by d.lease_no desc
limit 1

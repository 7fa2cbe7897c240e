-- What one attempt said, as far as that was kept, and what is needed to say it again.
select d.lease_no, d.attempt, d.recipient, d.subject, d.template_code, d.template_version, d.locale, d.content_sha256,
       d.started_at, v.content, j.tenant_id, j.channel, j.user_id, j.created_at, j.job_id, j.job::text as job
from outbox.api_notification_delivery as d
join outbox.delivery as v on v.id = d.id and v.lease_no = d.lease_no and v.late = d.late
join outbox.job as j on j.id = d.id
where d.id = %(id)s and d.lease_no = %(lease_no)s
order by d.late
limit 1

-- A job's attempts and terminal events, in their order.
select d.series, d.attempt, d.lease_no, d.late, d.status, d.provider, d.provider_message_id, d.recipient,
       d.subject, d.content_sha256, d.template_code, d.template_version, d.locale, d.error_class, d.error_code,
       d.error_message, d.started_at, d.finished_at, d.duration_ms, d.next_attempt_at
from outbox.api_notification_delivery as d
where d.id = %(id)s
order by d.series, d.lease_no, d.finished_at

-- The newest payloads that a new version of a template must be able to render.
select p.job_id, p.job, p.user_json
from outbox.recent_payloads(%(tenant)s, %(code)s, %(channel)s, %(locale)s, %(limit)s) as p

-- The alerts that are not over.
select a.alert_id, a.rule, a.subject, a.state, a.streak
from outbox.alert as a
where a.state <> 'closed'

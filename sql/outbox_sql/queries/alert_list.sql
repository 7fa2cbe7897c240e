-- Alerts, the open ones first, then the newest.
select a.alert_id, a.rule, a.subject, a.severity, a.state, a.value, a.since, a.opened_at, a.closed_at,
       a.acknowledged_at, a.acknowledged_by
from outbox.alert as a
where a.state <> 'pending' and (not %(open_only)s or a.state = 'open')
order by a.state = 'open' desc, a.alert_id desc
limit %(limit)s

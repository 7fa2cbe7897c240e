-- Somebody looks after an open alert; the first who said so stands.
update outbox.alert as a
set acknowledged_at = coalesce(a.acknowledged_at, clock_timestamp()),
    acknowledged_by = coalesce(a.acknowledged_by, %(actor)s)
where a.alert_id = %(alert_id)s and a.state = 'open'
returning a.alert_id, a.rule, a.subject, a.severity, a.state, a.value, a.since, a.opened_at, a.closed_at,
    a.acknowledged_at, a.acknowledged_by

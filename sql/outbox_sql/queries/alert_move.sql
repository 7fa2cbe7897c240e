-- Write down what a round has made of an alert. Its value stays where it does not hold any more.
update outbox.alert as a
set state = %(state)s,
    streak = %(streak)s,
    value = coalesce(%(value)s, a.value),
    opened_at = case when %(state)s = 'open' then coalesce(a.opened_at, clock_timestamp()) else a.opened_at end,
    closed_at = case when %(state)s = 'closed' then clock_timestamp() end
where a.alert_id = %(alert_id)s
returning a.alert_id, a.rule, a.subject, a.severity, a.state, a.value, a.since, a.opened_at, a.closed_at,
    a.acknowledged_at, a.acknowledged_by

-- Make an alert. (The round is one transaction at a time, so nobody else makes it meanwhile.)
insert into outbox.alert as a (rule, subject, severity, state, streak, value, opened_at)
values (%(rule)s, %(subject)s, %(severity)s, %(state)s, %(streak)s, %(value)s,
        case when %(state)s = 'open' then clock_timestamp() end)
returning a.alert_id, a.rule, a.subject, a.severity, a.state, a.value, a.since, a.opened_at, a.closed_at,
    a.acknowledged_at, a.acknowledged_by

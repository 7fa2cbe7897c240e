-- Whether a round of alerts is due: a look that costs nothing.
select r.next_at <= clock_timestamp() from outbox.alert_round as r

-- Forget alerts that never came to be, and those that have been over for 90 days.
delete from outbox.alert as a
where a.alert_id = any(%(ids)s) and a.state = 'pending'
   or a.closed_at < clock_timestamp() - interval '90 days'

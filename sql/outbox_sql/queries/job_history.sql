-- Every change of a job's state, oldest first.
select h.status, h.at, h.attempt, h.error, h.series
from outbox.api_notification_history as h
where h.id = %(id)s
order by h.series, h.at, h.step

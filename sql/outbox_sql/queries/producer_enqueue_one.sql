-- The Python door for one job: see producer_enqueue.sql.
select cast(json_build_array(e.job_id, e.status, e.result, e.job_ids) as text)
from outbox.enqueue_v1(
    cast(cast(%(jobs)s as text) as jsonb),
    cast(%(tenant)s as text),
    on_conflict => cast(%(on_conflict)s as text),
    fill_created => cast(%(fill_created)s as boolean),
    notify => cast(%(notify)s as boolean),
    traceparent => nullif(cast(%(traceparent)s as text), '')
) as e

-- The Python door: any number of jobs in one statement. Jobs go in and results come back as one
-- JSON text each, so that neither hangs on how the caller has set up the driver. `cast`, because
-- SQLAlchemy would take the second colon of a `::` for a parameter.
select cast(json_agg(json_build_array(e.job_id, e.status, e.result, e.job_ids)) as text)
from outbox.enqueue_many_v1(
    array(select jsonb_array_elements(cast(cast(%(jobs)s as text) as jsonb))),
    cast(%(tenant)s as text),
    on_conflict => cast(%(on_conflict)s as text),
    fill_created => cast(%(fill_created)s as boolean),
    notify => cast(%(notify)s as boolean),
    traceparents => case when cast(%(traceparent)s as text) <> ''
                         then array_fill(cast(%(traceparent)s as text),
                                         array[json_array_length(cast(%(jobs)s as json))]) end
) as e

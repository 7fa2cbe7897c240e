-- Hand in the jobs of a schedule's fires. What is known already is no second job.
select e.job_id::text, e.result,
       (select string_agg(f.pointer || ' ' || f.message, '; ') from unnest(e.faults) as f) as faults
from outbox.enqueue_many_v1(
    array(select j.value from jsonb_array_elements(%(jobs)s::jsonb) as j(value)), %(tenant)s::text,
    on_conflict => 'skip', on_fault => 'skip', notify => true, fill_created => true) as e
order by e.ord

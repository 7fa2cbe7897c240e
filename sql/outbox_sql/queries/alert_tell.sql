-- Hand in the alert's webhook as a job like any other, in the round's own transaction. Where no
-- dispatcher has ever had a webhook handler, the job is refused, and the round goes on.
select e.result
from outbox.enqueue_many_v1(array[%(job)s::jsonb], 'default', on_conflict => 'skip', on_fault => 'skip',
                            fill_created => true, notify => true) as e

-- Forget what attempts said whose process did not live to do so: their lease has moved on.
delete from outbox.progress as p
where p.at < clock_timestamp() - interval '1 minute'
  and not exists (select from outbox.entry as e
                  where e.id = p.id and e.lease_no = p.lease_no and e.claimed_by is not null)

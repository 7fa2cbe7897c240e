-- Erase a person: the pseudonym, how many jobs it concerned, how many were withdrawn.
select e.pseudonym, e.jobs, e.cancelled
from outbox.erase_recipient(%(tenant)s, %(user_id)s, %(actor)s) as e

-- Take in what a provider told of messages that it was given.
select t.known, t.stored
from outbox.take_receipts(%(tenant)s, %(provider_id)s, %(provider)s, %(events)s::json) as t

-- Destinations that have a rate, are paused or in trouble; or one of them.
select * from outbox.list_destinations(%(name)s)

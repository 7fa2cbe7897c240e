-- One PUT of a template at a time: versions must not collide.
select pg_advisory_xact_lock(hashtextextended(
    'outbox.template ' || %(tenant)s || ' ' || %(code)s || ' ' || %(channel)s || ' ' || %(locale)s, 0))

-- Don't wait any longer.
select outbox.promote_job(%(id)s, %(actor)s)

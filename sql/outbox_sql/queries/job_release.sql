-- Send what is held because nobody knows whether it was delivered.
select outbox.release_job(%(id)s, %(actor)s)

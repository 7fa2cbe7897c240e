-- Dispatchers that may still start something under older settings.
select outbox.unseen_by(%(version)s)

-- Whose key this is, by its hash; notes its use.
select a.key_id, a.name, a.tenant_id, a.scopes, a.mode, a.expires_at
from outbox.authenticate(%(hash)s) as a

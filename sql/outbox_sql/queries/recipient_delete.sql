-- Take a recipient out of the directory. Erasure is erase_recipient's.
delete from outbox.recipient as r where r.tenant_id = %(tenant)s and r.user_id = %(user_id)s

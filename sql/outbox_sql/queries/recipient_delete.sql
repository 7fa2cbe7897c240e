-- Take a recipient out of the directory, devices and all. Erasure is erase_recipient's.
with devices as (
    delete from outbox.device as d where d.tenant_id = %(tenant)s and d.user_id = %(user_id)s
)
delete from outbox.recipient as r where r.tenant_id = %(tenant)s and r.user_id = %(user_id)s

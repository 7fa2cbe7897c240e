-- Forget a device.
delete from outbox.device as d
where d.tenant_id = %(tenant)s and d.user_id = %(user_id)s and d.device_id = %(device_id)s

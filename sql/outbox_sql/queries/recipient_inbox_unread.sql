-- How many of a user's messages are unread.
select count(*) from outbox.inbox_message as m
where m.tenant_id = %(tenant)s and m.user_id = %(user_id)s and m.read_at is null

-- Store credentials under another key, unless somebody has changed them meanwhile.
update outbox.provider as p
set credentials = %(sealed)s, key_id = %(key_id)s
where p.provider_id = %(provider_id)s and p.credentials = %(was)s

-- Store an endpoint's secrets under another key, unless somebody has changed them meanwhile.
update outbox.endpoint as e
set secrets = %(sealed)s, key_id = %(key_id)s
where e.endpoint_id = %(endpoint_id)s and e.secrets = %(was)s

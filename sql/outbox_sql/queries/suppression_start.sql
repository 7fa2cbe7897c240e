-- Let an address receive again, because its owner has said START: what STOP had done is undone, and nothing else.
delete from outbox.suppression as s
where s.tenant_id = %(tenant)s and s.channel = %(channel)s
  and s.address in (%(address)s, 'erased:' || to_hex(outbox.address_hash(%(address)s)))
  and s.code in ('receipt.opted_out', 'twilio.21610')

-- Let an address receive again, also where its owner was erased and a hash of it is all that is left.
delete from outbox.suppression as s
where s.tenant_id = %(tenant)s and s.channel = %(channel)s 
  and s.address in (%(address)s, 'erased:' || to_hex(outbox.address_hash(%(address)s)))

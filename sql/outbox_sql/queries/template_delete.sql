-- Take a template out of use, in all of its versions; what was rendered with it stays explained.
update outbox.template as t
set deleted_at = clock_timestamp()
where t.tenant_id = %(tenant)s and t.code = %(code)s and t.channel = %(channel)s and t.locale = %(locale)s
  and t.deleted_at is null

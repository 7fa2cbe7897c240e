-- The templates in use, by code, channel and locale: the newest version of each.
select distinct on (t.code, t.channel, t.locale) t.tenant_id, t.code, t.channel, t.locale, t.version, t.subject,
       t.keep_content, t.created_at, t.created_by
from outbox.template as t
where t.tenant_id = %(tenant)s and t.deleted_at is null
  and (%(code)s::text is null or t.code = %(code)s)
  and (%(channel)s::text is null or t.channel = %(channel)s)
  and (t.code, t.channel, t.locale) > (%(after_code)s, %(after_channel)s, %(after_locale)s)
order by t.code, t.channel, t.locale, t.version desc
limit %(limit)s

-- Every version of a template, newest first.
select t.tenant_id, t.code, t.channel, t.locale, t.version, t.subject, t.body_text, t.body_html,
       t.schema::text as schema, t.keep_content, t.on_ambiguous, t.created_at, t.created_by, t.deleted_at
from outbox.template as t
where t.tenant_id = %(tenant)s and t.code = %(code)s and t.channel = %(channel)s and t.locale = %(locale)s
  and (%(before)s::int is null or t.version < %(before)s)
order by t.version desc
limit %(limit)s

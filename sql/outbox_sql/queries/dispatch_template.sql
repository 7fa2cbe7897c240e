-- Every locale of a template that a job may need: the newest version, and older ones when asked for.
select t.locale, t.version, t.subject, t.body_text, t.body_html, t.schema::text, t.keep_content, t.on_ambiguous,
       t.version = max(t.version) over (partition by t.locale) as newest
from outbox.template as t
where t.tenant_id = %(tenant_id)s and t.code = %(code)s and t.channel = %(channel)s and t.deleted_at is null
order by t.locale, t.version desc
limit 500

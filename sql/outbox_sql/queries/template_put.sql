-- A new version of a template. What was deleted comes back.
insert into outbox.template (tenant_id, code, channel, locale, version, subject, body_text, body_html, schema,
    keep_content, on_ambiguous, created_by)
select %(tenant)s, %(code)s, %(channel)s, %(locale)s,
       coalesce((select max(t.version) from outbox.template as t
                 where t.tenant_id = %(tenant)s and t.code = %(code)s and t.channel = %(channel)s
                   and t.locale = %(locale)s), 0) + 1,
       %(subject)s, %(text)s, %(html)s, %(schema)s::jsonb, %(keep_content)s, %(on_ambiguous)s, %(actor)s
returning tenant_id, code, channel, locale, version, subject, body_text, body_html, schema::text as schema,
    keep_content, on_ambiguous, created_at, created_by, deleted_at

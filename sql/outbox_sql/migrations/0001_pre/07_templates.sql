-- The newest real payloads of a template, with what the directory knows of their recipients: what a new
-- version has to render before it goes live. No index knows templates, so they are looked for among the newest
-- jobs. Left out are those that ended with a template's error, and those of persons who were erased.
create function outbox.recent_payloads(
    for_tenant text, for_code text, for_channel text, payloads_max int, jobs_max int default 50000
) returns table (job_id uuid, job text, user_json text)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    if not outbox.acts_for(for_tenant) then
        raise exception using errcode = 'OBX03', detail = '[]', message = 'another tenant''s templates';
    end if;
    return query
    select j.job_id, j.job::text,
        jsonb_build_object('user_id', j.user_id, 'email', r.email, 'phone', r.phone, 'locale', r.locale,
                           'timezone', r.timezone, 'attributes', coalesce(r.attributes, '{}'))::text
    from (select n.* from outbox.job as n order by n.id desc limit jobs_max) as j
    left join outbox.recipient as r on r.tenant_id = j.tenant_id and r.user_id = j.user_id
    where j.tenant_id = for_tenant and j.template_code = for_code and j.channel = for_channel
      and not j.job ? 'erased'
      and not exists (select from outbox.delivery as d
                      where d.id = j.id and d.terminal and not d.late and starts_with(d.error_code, 'template.'))
    order by j.id desc limit payloads_max;
end
$$;

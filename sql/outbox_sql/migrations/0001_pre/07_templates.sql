-- The newest real payloads of a template, with what the directory knows of their recipients: what a new
-- version has to render before it goes live. Those of its own locale are among them however many there are of
-- others. No index knows templates, so they are looked for among the newest jobs. Left out are those that ended
-- with a template's error, and those of persons who were erased.
create function outbox.recent_payloads(
    for_tenant text, for_code text, for_channel text, for_locale text, payloads_max int, jobs_max int default 50000
) returns table (job_id uuid, job text, user_json text)
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_column
begin
    if not outbox.acts_for(for_tenant) then
        raise exception using errcode = 'OBX03', detail = '[]', message = 'another tenant''s templates';
    end if;
    return query
    with known as not materialized (
        select j.id, j.job_id, j.job::text as job,
            jsonb_build_object('user_id', j.user_id, 'email', r.email, 'phone', r.phone, 'locale', r.locale,
                               'timezone', r.timezone, 'attributes', coalesce(r.attributes, '{}'))::text as user_json,
            lower(replace(coalesce(j.locale, r.locale), '_', '-')) || '-' as locale
        from (select n.* from outbox.job as n order by n.id desc limit jobs_max) as j
        left join outbox.recipient as r on r.tenant_id = j.tenant_id and r.user_id = j.user_id
        where j.tenant_id = for_tenant and j.template_code = for_code and j.channel = for_channel
          and not j.job ? 'erased'
          and not exists (select from outbox.delivery as d
                          where d.id = j.id and d.terminal and not d.late and starts_with(d.error_code, 'template.'))
    ), wanted as (
        (select k.* from known as k order by k.id desc limit payloads_max)
        union
        (select k.* from known as k where starts_with(k.locale, lower(for_locale) || '-') order by k.id desc limit payloads_max)
    )
    select w.job_id, w.job, w.user_json from wanted as w order by w.id desc;
end
$$;

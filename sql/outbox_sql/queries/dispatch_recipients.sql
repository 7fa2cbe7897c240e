-- Who these jobs go to: one row for each (tenant, user or address) asked, with what the directory
-- and the suppression list say. The address is the job's own, else the directory's for its channel.
select a.n, r.user_id is not null as known, coalesce(a.address, d.address) as address,
       r.locale, r.timezone, t.default_locale,
       jsonb_build_object('user_id', a.user_id, 'email', r.email, 'phone', r.phone, 'locale', r.locale,
                          'timezone', r.timezone, 'attributes', coalesce(r.attributes, '{}'))::text as user_json,
       coalesce(a.category = any(r.opt_outs), false) as opted_out,
       coalesce(s.code, e.code) as suppressed,
       v.template_version, (r.quiet_hours ->> 'from')::time as quiet_from, (r.quiet_hours ->> 'to')::time as quiet_to,
       -- Push goes to all of a user's devices, or to the one that the job names.
       case when a.channel in ('push', 'browser') then
           (select json_agg(json_build_object('address', x.address, 'p256dh', x.p256dh, 'auth', x.auth)
                            order by x.seen_at desc)
            from outbox.device as x
            where x.tenant_id = a.tenant_id and x.channel = a.channel
              and case when a.address is null then x.user_id = a.user_id else x.address = a.address end)::text
       end as devices_json
from unnest(%(ns)s::int[], %(ids)s::bigint[], %(tenants)s::text[], %(users)s::text[], %(channels)s::text[],
            %(addresses)s::text[], %(categories)s::text[], %(again)s::boolean[])
     as a(n, id, tenant_id, user_id, channel, address, category, again)
-- An address without a user may have opted out as well: then it has a row by the name of outbox.address_user.
left join outbox.recipient as r on r.tenant_id = a.tenant_id
                               and r.user_id = coalesce(a.user_id, outbox.address_user(a.channel, a.address))
left join outbox.tenant as t on t.tenant_id = a.tenant_id
cross join lateral (select case a.channel when 'email' then r.email when 'sms' then r.phone
                                          when 'telegram' then r.telegram_chat_id
                                          when 'inbox' then a.user_id when 'ws' then a.user_id end as address) as d
left join outbox.suppression as s on s.tenant_id = a.tenant_id and s.channel = a.channel
                                 and s.address = lower(coalesce(a.address, d.address))
                                 and (s.expires_at is null or s.expires_at > clock_timestamp())
-- An address whose owner was erased is known by its hash alone, which nobody computes where none was.
left join lateral (
    select x.code
    from outbox.suppression as x
    where (select exists (select from outbox.suppression as o where starts_with(o.address, 'erased:')))
      and x.tenant_id = a.tenant_id and x.channel = a.channel
      and x.address = 'erased:' || to_hex(outbox.address_hash(coalesce(a.address, d.address)))
      and (x.expires_at is null or x.expires_at > clock_timestamp())) as e on true
-- A job keeps the version of the template that it was rendered with first.
left join lateral (select max(d.template_version) as template_version from outbox.delivery as d
                   where a.again and d.id = a.id) as v on true

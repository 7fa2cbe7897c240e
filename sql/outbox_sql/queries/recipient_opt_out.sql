-- A recipient wants no more of a category. An address without a user gets a row of its own.
insert into outbox.recipient as r (tenant_id, user_id, email, opt_outs)
select %(tenant)s, coalesce(%(user_id)s, outbox.address_user(%(channel)s, %(address)s)),
       case when %(channel)s::text = 'email' then %(address)s::text end, array[%(category)s::text]
on conflict (tenant_id, user_id) do update
set opt_outs = (select array_agg(distinct o order by o) from unnest(r.opt_outs || excluded.opt_outs) as o),
    updated_at = clock_timestamp()

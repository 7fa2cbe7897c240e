-- Destinations (store.md 1): a host, an endpoint or a provider, over all tenants and dispatchers: the rate that an
-- operator has set, the pause that its Retry-After asked for, and the circuit breaker.
--
-- Breaker:  closed ── half of 20 or more attempts of the last minute failed ──▶ open for 30 s
--           open ── its time is over ──▶ half open: one job at a time is tried over the fleet
--           half open ── that one was answered ──▶ closed
--                     ── it failed ──▶ open for twice as long, an hour at most

-- A probe of a half-open breaker has so long to tell how it went; then another may go.
create function outbox.probe_s() returns double precision
    language sql immutable return 60.0;

-- Tell all dispatchers that destinations have changed.
create function outbox.destinations_changed() returns void
    language plpgsql volatile as $$
begin
    update outbox.control set destinations = destinations + 1;
    perform pg_notify('outbox_bell', 'destinations');
end
$$;

-- Forget what nobody needs any more, a bounded number at a time.
create function outbox.prune_destinations() returns void
    language sql volatile as $$
    with over as (
        delete from outbox.destination as d
        where d.name in (select o.name from outbox.destination as o
                         where o.rate_per_s is null and o.open_until is null
                           and coalesce(o.paused_until < clock_timestamp(), true)
                         limit 100 for update skip locked)
        returning d.name)
    delete from outbox.bucket as b using over as o where b.name = o.name $$;

-- Set the rate of a destination, for all tenants (null: no limit); `resume` ends its pause and closes its breaker.
create function outbox.set_destination(
    wanted text, to_rate_per_s double precision, to_burst int, resume boolean, actor text
) returns void
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    was jsonb;
begin
    if not outbox.acts_for('*') then
        raise exception using errcode = 'OBX03', detail = '[]', message = 'a destination needs a service-wide key';
    end if;
    perform outbox.check_limits(1, null, to_rate_per_s, to_burst);
    if wanted !~ '^(host|endpoint|provider):[!-~]{1,255}$' then
        raise exception using errcode = 'OBX01', message = 'name must be host:NAME, endpoint:ID or provider:NAME',
            detail = '[{"pointer": "/path/name", "message": "must be host:NAME, endpoint:ID or provider:NAME"}]';
    end if;
    select jsonb_build_object('rate_per_s', d.rate_per_s, 'burst', d.burst, 'paused_until', d.paused_until,
                              'open_until', d.open_until) into was
    from outbox.destination as d where d.name = wanted;
    insert into outbox.destination as d (name, rate_per_s, burst) values (wanted, to_rate_per_s, to_burst)
    on conflict (name) do update
    set rate_per_s = excluded.rate_per_s, burst = excluded.burst, changed_at = clock_timestamp();
    if resume then
        update outbox.destination as d
        set paused_until = null, opened_at = null, open_until = null, open_s = null, probe_until = null
        where d.name = wanted;
        delete from outbox.destination_health as h where h.name = wanted;
    end if;
    perform outbox.prune_destinations();
    insert into outbox.operator_action (actor, action, tenant_id, detail)
    values (actor, case when resume then 'resume' else 'limit' end, '*',
            jsonb_build_object('destination', wanted, 'before', was, 'after', jsonb_build_object(
                'rate_per_s', to_rate_per_s, 'burst', to_burst,
                'paused_until', case when not resume then was -> 'paused_until' end,
                'open_until', case when not resume then was -> 'open_until' end)));
    perform outbox.destinations_changed();
end
$$;

-- Let nobody talk to a destination for a while, because it asked for that. What is over and has no rate goes.
create function outbox.pause_destination(wanted text, pause_s double precision) returns timestamptz
    language plpgsql volatile as $$
declare
    until timestamptz;
begin
    insert into outbox.destination as d (name, paused_until)
    values (wanted, clock_timestamp() + make_interval(secs => pause_s))
    on conflict (name) do update set paused_until = greatest(d.paused_until, excluded.paused_until)
    returning paused_until into until;
    perform outbox.prune_destinations();
    perform outbox.destinations_changed();
    return until;
end
$$;

-- Take in what a dispatcher's attempts of the last minute came to, by destination; open breakers. A destination in
-- trouble is watched: dispatchers that have nothing but successes to tell of it do so too.
create function outbox.report_destinations(for_epoch bigint, names text[], goods int[], bads int[]) returns void
    language plpgsql volatile as $$
declare
    opened boolean;
    watched boolean;
begin
    with told as (
        insert into outbox.destination_health as h (name, epoch, good, bad)
        select t.name, for_epoch, t.good, t.bad from unnest(names, goods, bads) as t(name, good, bad) order by t.name
        on conflict (name, epoch) do update set good = excluded.good, bad = excluded.bad, told_at = clock_timestamp()
        returning h.xmax = 0 as is_new)
    select bool_or(t.is_new) into watched from told as t;
    delete from outbox.destination_health as h
    where h.told_at < clock_timestamp() - interval '60 s' or h.name = any(names) and h.good + h.bad = 0;
    with failing as (
        select h.name from outbox.destination_health as h
        where h.name = any(names)
        group by h.name
        having sum(h.good + h.bad) >= 20 and sum(h.bad) * 2 >= sum(h.good + h.bad)
        order by h.name
    ), open as (
        insert into outbox.destination as d (name, opened_at, open_s, open_until)
        select f.name, clock_timestamp(), 30, clock_timestamp() + interval '30 s' from failing as f
        on conflict (name) do update
        set opened_at = excluded.opened_at, open_s = excluded.open_s, open_until = excluded.open_until, probe_until = null
        where d.open_until is null
        returning d.name)
    select count(*) > 0 into opened from open;
    if opened or watched then
        perform outbox.destinations_changed();
    end if;
end
$$;

-- Say how the probe of a half-open breaker went.
create function outbox.settle_destination(wanted text, well boolean) returns void
    language plpgsql volatile as $$
begin
    if well then
        update outbox.destination as d
        set opened_at = null, open_until = null, open_s = null, probe_until = null
        where d.name = wanted and d.open_until <= clock_timestamp();
        if found then
            delete from outbox.destination_health as h where h.name = wanted;
        end if;
    else
        update outbox.destination as d
        set open_s = least(d.open_s * 2, 3600), probe_until = null,
            open_until = clock_timestamp() + make_interval(secs => least(d.open_s * 2, 3600))
        where d.name = wanted and d.open_until <= clock_timestamp();
    end if;
    perform outbox.prune_destinations();
    perform outbox.destinations_changed();
end
$$;

-- All destinations that have a rate, are paused or in trouble, or one of them; for service-wide keys.
create function outbox.list_destinations(wanted text default null) returns table (
        name text, breaker text, rate_per_s double precision, burst int, tokens double precision,
        paused_until timestamptz, opened_at timestamptz, open_until timestamptz, good int, bad int,
        changed_at timestamptz)
    language sql volatile security definer set search_path = pg_catalog, pg_temp
    as $$ select n.name,
                 case when d.open_until is null then 'closed' when d.open_until > clock_timestamp() then 'open'
                      else 'half_open' end,
                 d.rate_per_s, d.burst, outbox.tokens_now(d.name, d.rate_per_s, d.burst),
                 case when d.paused_until > clock_timestamp() then d.paused_until end, d.opened_at, d.open_until,
                 coalesce(h.good, 0)::int, coalesce(h.bad, 0)::int, d.changed_at
          from (select o.name from outbox.destination as o union select o.name from outbox.destination_health as o) as n
          left join outbox.destination as d on d.name = n.name
          left join lateral (select sum(o.good) as good, sum(o.bad) as bad from outbox.destination_health as o
                             where o.name = n.name and o.told_at > clock_timestamp() - interval '60 s') as h on true
          where (d.rate_per_s is not null or d.paused_until > clock_timestamp() or d.open_until is not null or h.bad > 0)
            and (wanted is null or n.name = wanted) and outbox.acts_for('*')
          order by n.name limit 10000 $$;

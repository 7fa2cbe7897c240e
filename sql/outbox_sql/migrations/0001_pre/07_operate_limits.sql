-- Limits (store.md 3): weight, concurrency and rate of a lane, rate and pause of a destination. Dispatchers lease
-- parts of them and deal them out in their claims.

-- Refuse what can't be a limit, in a sentence for each. (NaN is greater than every number.)
create function outbox.check_limits(
    weight int, concurrency_max int, rate_per_s double precision, burst int
) returns void
    language plpgsql immutable as $$
declare
    faults jsonb := '[]';
begin
    if weight not between 1 and 1000 then
        faults := faults || jsonb_build_object('pointer', '/weight', 'message', 'must be from 1 to 1,000');
    end if;
    if concurrency_max not between 1 and 100000 then
        faults := faults || jsonb_build_object('pointer', '/concurrency_max', 'message',
            'must be from 1 to 100,000, or null for no limit; to stop a lane, pause it');
    end if;
    if rate_per_s not between 0.001 and 1000000 then
        faults := faults || jsonb_build_object('pointer', '/rate_per_s', 'message',
            'must be from 0.001 to 1,000,000, or null for no limit; to stop a lane, pause it');
    end if;
    if burst not between 1 and 1000000 then
        faults := faults || jsonb_build_object('pointer', '/burst', 'message', 'must be from 1 to 1,000,000');
    elsif burst is not null and rate_per_s is null then
        faults := faults || jsonb_build_object('pointer', '/burst', 'message', 'needs a rate_per_s');
    elsif burst < rate_per_s / 10 then
        faults := faults || jsonb_build_object('pointer', '/burst', 'message',
            'must be at least a tenth of rate_per_s: dispatchers come for tokens ten times a second');
    end if;
    if faults <> '[]' then
        raise exception using errcode = 'OBX01', detail = faults::text,
            message = (select string_agg(substr(f ->> 'pointer', 2) || ' ' || (f ->> 'message'), '; ')
                       from jsonb_array_elements(faults) as f);
    end if;
end
$$;

-- Set all limits of a lane (null: no limit). Returns the version that dispatchers must have seen.
create function outbox.set_lane_limits(
    for_tenant text, for_queue text, to_weight int, to_concurrency_max int, to_rate_per_s double precision,
    to_burst int, actor text
) returns bigint
    language plpgsql volatile security definer set search_path = pg_catalog, pg_temp as $$
declare
    now_version bigint := outbox.next_version();
    lane int;
    was jsonb;
begin
    if not outbox.acts_for(for_tenant) then
        raise exception using errcode = 'OBX03', detail = '[]', message = 'another tenant''s lane needs a service-wide key';
    end if;
    perform outbox.check_limits(to_weight, to_concurrency_max, to_rate_per_s, to_burst);
    lane := outbox.lane_of(for_tenant, for_queue);
    select jsonb_build_object('weight', l.weight, 'concurrency_max', l.concurrency_max, 'rate_per_s', l.rate_per_s,
                              'burst', l.burst) into was
    from outbox.lane as l where l.lane_id = lane for update;
    update outbox.lane as l
    set weight = to_weight, concurrency_max = to_concurrency_max, rate_per_s = to_rate_per_s, burst = to_burst,
        version = now_version
    where l.lane_id = lane;
    insert into outbox.operator_action (actor, action, tenant_id, detail)
    values (actor, 'limit', for_tenant, jsonb_build_object('queue', for_queue, 'before', was, 'after',
        jsonb_build_object('weight', to_weight, 'concurrency_max', to_concurrency_max, 'rate_per_s', to_rate_per_s,
                           'burst', to_burst)));
    perform pg_notify('outbox_bell', 'control');
    return now_version;
end
$$;

-- The narrower lane where a scope's entries wait; made of its main lane.
create function outbox.scope_lane(for_tenant text, for_queue text, for_scope text) returns int
    language plpgsql volatile as $$
declare
    main int := outbox.lane_of(for_tenant, for_queue);
    found_id int;
begin
    insert into outbox.lane (tenant_id, queue, scope, paused_at, paused_by, own_paused_at, own_paused_by, version)
    select m.tenant_id, m.queue, for_scope, m.paused_at, m.paused_by, m.own_paused_at, m.own_paused_by, m.version
    from outbox.lane as m where m.lane_id = main
    on conflict (tenant_id, queue, scope) do nothing;
    select l.lane_id into found_id from outbox.lane as l
    where l.tenant_id = for_tenant and l.queue = for_queue and l.scope = for_scope;
    return found_id;
end
$$;

-- Lease parts of limits to a dispatcher: one element for a lane, or for a destination (then lane_id is null).
-- `in_use`: places taken here; `wanted`: how many more it would claim now; `back`: tokens that it did not need
-- (negative: it needed more). Returned are all the places that it has from now on (null: no limit), new tokens (null:
-- no rate), and after how long it is worth asking again.
-- A lane's places are shared by demand: everybody gets at least an equal part of what it wants, and nobody gives up
-- what it uses. Their sum exceeds the limit only where the limit was lowered below what was in use.
create function outbox.lease_limits(
    for_epoch bigint, lane_ids int[], destinations text[], in_use int[], wanted int[], back double precision[]
) returns table (lane_id int, destination text, places int, tokens int, wait_s double precision)
    language plpgsql volatile as $$
#variable_conflict use_column
declare
    names text[] := array(select coalesce(a.d, 'lane:' || a.l) from unnest(lane_ids, destinations) as a(l, d) order by 1);
    at timestamptz;
begin
    insert into outbox.bucket (name)
    select n from unnest(names) as n where not exists (select from outbox.bucket as b where b.name = n)
    on conflict (name) do nothing;
    -- A statement of its own: what comes after it sees all that was done before the lock was ours.
    perform from outbox.bucket as b where b.name = any(names) order by b.name for update;
    at := clock_timestamp();
    delete from outbox.lane_share as s
    where s.lane_id = any(lane_ids)
      and not exists (select from outbox.dispatcher as d where d.epoch = s.epoch and d.rescued_at is null);
    return query
    with asked as materialized (
        select a.lane_id, a.destination, coalesce(a.destination, 'lane:' || a.lane_id) as name, a.in_use, a.wanted, a.back,
               l.concurrency_max, coalesce(l.rate_per_s, d.rate_per_s) as rate_per_s,
               coalesce(l.burst, d.burst, ceil(coalesce(l.rate_per_s, d.rate_per_s))) as burst,
               greatest(extract(epoch from greatest(d.paused_until, d.open_until) - at)::float8, 0) as paused_s,
               d.open_until is not null as half_open, greatest(extract(epoch from d.probe_until - at)::float8, 0) as probe_s
        from unnest(lane_ids, destinations, in_use, wanted, back) as a(lane_id, destination, in_use, wanted, back)
        left join outbox.lane as l on l.lane_id = a.lane_id
        left join outbox.destination as d on d.name = a.destination
    ), others as materialized (
        select a.lane_id, sum(s.places)::int as places,
               sum(least(s.wanted, a.concurrency_max / (o.claimants + 1)))::int as due
        from asked as a
        join outbox.lane_share as s on s.lane_id = a.lane_id and s.epoch <> for_epoch
        cross join lateral (select count(*)::int as claimants from outbox.lane_share as o
                            where o.lane_id = a.lane_id and o.epoch <> for_epoch and o.wanted > 0) as o
        group by a.lane_id
    ), shared as materialized (
        select a.lane_id, a.in_use + a.wanted as wanted,
               greatest(a.in_use, least(a.in_use + a.wanted, a.concurrency_max - coalesce(o.due, 0),
                                        a.concurrency_max - coalesce(o.places, 0))) as places
        from asked as a
        left join others as o on o.lane_id = a.lane_id
        where a.concurrency_max is not null
    ), kept as (
        insert into outbox.lane_share as s (lane_id, epoch, places, wanted)
        select h.lane_id, for_epoch, h.places, h.wanted from shared as h where h.wanted > 0
        on conflict (lane_id, epoch) do update set places = excluded.places, wanted = excluded.wanted
        where (s.places, s.wanted) is distinct from (excluded.places, excluded.wanted)
    ), given_back as (
        delete from outbox.lane_share as s using asked as a
        where s.lane_id = a.lane_id and s.epoch = for_epoch and (a.in_use + a.wanted = 0 or a.concurrency_max is null)
    ), filled as materialized (
        select a.name, a.back,
               least(a.burst, b.tokens + a.back + a.rate_per_s * greatest(extract(epoch from at - b.filled_at)::float8, 0))
                   as tokens,
               least(a.wanted, coalesce(h.places - a.in_use, a.wanted), greatest(1, a.rate_per_s)) as wanted,
               greatest(1, least(a.burst, a.rate_per_s / 4)) as worth_asking, a.rate_per_s, a.paused_s, a.half_open,
               a.probe_s
        from asked as a
        join outbox.bucket as b on b.name = a.name
        left join shared as h on h.lane_id = a.lane_id
        where a.rate_per_s is not null or a.half_open
    ), given as materialized (
        -- A breaker that is half open lets one through at a time, over the fleet.
        select f.*,
               case when f.paused_s > 0 then 0
                    when f.half_open then case when f.probe_s > 0 then 0
                                               else floor(greatest(0, least(f.wanted, 1, coalesce(f.tokens, 1))))::int end
                    else floor(greatest(0, least(f.wanted, f.tokens)))::int end as given
        from filled as f
    ), drawn as (
        update outbox.bucket as b set tokens = g.tokens - g.given, filled_at = at
        from given as g where b.name = g.name and g.rate_per_s is not null and (g.given > 0 or g.back <> 0)
    ), probing as (
        update outbox.destination as d
        set probe_until = case when g.given > 0 then at + make_interval(secs => outbox.probe_s()) end
        from given as g where d.name = g.name and g.half_open and (g.given > 0 or g.back > 0 and g.probe_s > 0)
    )
    select a.lane_id, a.destination, h.places, g.given,
           case when g.paused_s > 0 then g.paused_s
                when g.half_open then case when g.given > 0 then outbox.probe_s() else least(greatest(g.probe_s, 0.1), 1) end
                else greatest(0, coalesce((g.worth_asking - (g.tokens - g.given)) / g.rate_per_s, 0)) end
    from asked as a
    left join shared as h on h.lane_id = a.lane_id
    left join given as g on g.name = a.name;
end
$$;

-- How many tokens a bucket has now.
create function outbox.tokens_now(bucket text, rate_per_s double precision, burst int) returns double precision
    language sql volatile
    as $$ select least(coalesce(burst, ceil(rate_per_s)), coalesce(
              (select b.tokens + rate_per_s * greatest(extract(epoch from clock_timestamp() - b.filled_at)::float8, 0)
               from outbox.bucket as b where b.name = bucket), 'infinity'))
          where rate_per_s is not null $$;

-- A lane's limits as they are used now; for a narrower lane also those of the destination that it waits for.
create function outbox.limits_now(wanted int) returns table (
        weight int, concurrency_max int, places_taken int, rate_per_s double precision, burst int, tokens double precision,
        destination text, destination_rate_per_s double precision, destination_tokens double precision,
        destination_paused_until timestamptz, destination_open_until timestamptz, destination_opened_at timestamptz)
    language sql volatile security definer set search_path = pg_catalog, pg_temp
    as $$ select m.weight::int, m.concurrency_max,
                 (select coalesce(sum(s.places), 0)::int from outbox.lane_share as s
                  join outbox.dispatcher as d on d.epoch = s.epoch and d.rescued_at is null
                  where s.lane_id = m.lane_id),
                 m.rate_per_s, m.burst, outbox.tokens_now('lane:' || m.lane_id, m.rate_per_s, m.burst),
                 d.name, d.rate_per_s, outbox.tokens_now(d.name, d.rate_per_s, d.burst),
                 case when d.paused_until > clock_timestamp() then d.paused_until end, d.open_until, d.opened_at
          from outbox.lane as l
          join outbox.lane as m on m.tenant_id = l.tenant_id and m.queue = l.queue and m.scope = ''
          left join outbox.destination as d on l.scope = 'destination:' || d.name
          where l.lane_id = wanted and outbox.acts_for(l.tenant_id) $$;

-- Ids are time: milliseconds since 2020 shifted left by 22, the low bits from a sequence.

create function outbox.id_floor(at timestamptz) returns bigint
    language sql immutable parallel safe strict
    return ((extract(epoch from at) * 1000)::bigint - 1577836800000) << 22;
comment on function outbox.id_floor is 'The lowest id that a job accepted at that time can have.';

create function outbox.id_time(id bigint) returns timestamptz
    language sql immutable parallel safe strict
    return to_timestamp(((id >> 22) + 1577836800000) / 1000.0);
comment on function outbox.id_time is 'When the job with this id was accepted, to the millisecond.';

create function outbox.next_id() returns bigint
    language sql volatile
    return outbox.id_floor(clock_timestamp()) | (nextval('outbox.id_seq') & 4194303);

-- CREATE, CHECK, ATTACH: a CREATE … PARTITION OF waits for every reader, and producers wait behind it.
create function outbox.make_partitions(days_ahead int default 14, now timestamptz default null) returns int
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '2s' as $$
declare
    parent text;
    first_day date := (coalesce(now, clock_timestamp()) at time zone 'utc')::date - 1;
    day date;
    child text;
    low bigint;
    high bigint;
    made int := 0;
begin
    perform pg_advisory_xact_lock(hashtextextended('outbox.make_partitions', 0));
    foreach parent in array array['job', 'delivery'] loop
        for day in select first_day + n from generate_series(0, days_ahead + 1) as n loop
            child := parent || '_' || to_char(day, 'YYYYMMDD');
            if to_regclass(format('outbox.%I', child)) is not null then
                continue;
            end if;
            low := outbox.id_floor(day::timestamp at time zone 'utc');
            high := outbox.id_floor((day + 1)::timestamp at time zone 'utc');
            execute format('create table outbox.%I (like outbox.%I including defaults including constraints,
                            constraint in_day check (id >= %s and id < %s))', child, parent, low, high);
            execute format('alter table outbox.%I attach partition outbox.%I for values from (%s) to (%s)',
                           parent, child, low, high);
            execute format('alter table outbox.%I drop constraint in_day', child);
            made := made + 1;
        end loop;
    end loop;
    return made;
end
$$;
comment on function outbox.make_partitions is
    'Create the daily partitions that are missing up to so many days ahead; returns how many it made.';
select outbox.make_partitions();

-- The days that have a partition of a table; `pending`: somebody's DETACH … CONCURRENTLY was interrupted.
create function outbox.days_of(parent regclass)
    returns table (day date, child text, pending boolean, low bigint, high bigint)
    language sql stable security definer set search_path = pg_catalog, pg_temp
    as $$ select d.day, d.relname, d.inhdetachpending, outbox.id_floor(d.day::timestamp at time zone 'utc'),
                 outbox.id_floor((d.day + 1)::timestamp at time zone 'utc')
          from (select to_date(right(c.relname, 8), 'YYYYMMDD') as day, c.relname::text, i.inhdetachpending
                from pg_inherits as i join pg_class as c on c.oid = i.inhrelid
                where i.inhparent = parent) as d $$;

create function outbox.partition_days_left(now timestamptz default null) returns int
    language sql stable security definer set search_path = pg_catalog, pg_temp
    return (select min(n.days)::int
            from (values ('outbox.job'::regclass), ('outbox.delivery'::regclass)) as p(parent)
            cross join lateral (select count(*) as days from outbox.days_of(p.parent) as d
                                where d.day > (coalesce(now, clock_timestamp()) at time zone 'utc')::date) as n);

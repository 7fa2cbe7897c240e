-- Order (docs/ordering.md): the jobs of one ordering_key in one tenant's queue go one at a time, in the
-- order in which their producers got the key's lock. The first of them, the head, stands in its lane
-- as any entry does. The others, its followers, have the lane's number negated, where no claim looks.

-- The keys themselves may be somebody's data, so only their keyed hash is kept beside the job.
create function outbox.key_hash(address_key bytea, tenant text, queue text, key text) returns bytea
    language sql immutable parallel safe
    return sha256(address_key || convert_to(char_length(tenant) || ':' || tenant || char_length(queue) || ':' || queue
                                            || key, 'UTF8'));

-- Take the lock of a key until the transaction ends. Its row is there as long as one of its jobs is:
-- `is_new` tells that there was none, so whoever asks first puts the head into the lane.
create function outbox.take_ordering(tenant text, of_queue text, hash bytea, out ordering_id bigint, out is_new boolean)
    language plpgsql volatile as $$
#variable_conflict use_column
begin
    loop
        insert into outbox.ordering as o (tenant_id, queue, key_sha256) values (tenant, of_queue, hash)
        on conflict (key_sha256) do nothing
        returning o.ordering_id into take_ordering.ordering_id;
        is_new := found;
        if not found then
            select o.ordering_id into take_ordering.ordering_id
            from outbox.ordering as o where o.key_sha256 = hash for update;
        end if;
        exit when found;  -- else its last job ended while we waited
    end loop;
end
$$;

-- The entries of ordered jobs that were just stored. Keys are locked in one order everywhere, so
-- that overlapping batches cannot deadlock. Places come from a sequence under the lock: so they rise.
create function outbox.store_ordered(parsed outbox.parsed[], fresh_ids bigint[], at timestamptz, address_key bytea)
    returns void
    language plpgsql volatile as $$
#variable_conflict use_column
declare
    key record;
    taken record;
    new_orderings bigint[] := '{}';
begin
    for key in
        select distinct p.tenant_id, p.queue, outbox.key_hash(address_key, p.tenant_id, p.queue, p.ordering_key) as hash
        from unnest(parsed) as p
        where p.ordering_key is not null and p.list_job_ids is null and (p.expires_at is null or p.expires_at > at)
          and (p.id in (select unnest(fresh_ids))) is true
        order by 3
    loop
        taken := outbox.take_ordering(key.tenant_id, key.queue, key.hash);
        if taken.is_new then
            new_orderings := new_orderings || taken.ordering_id;
        end if;
    end loop;
    insert into outbox.entry (id, available_at, expires_at, lane_id, priority, max_attempts, ordering_id, place)
    select s.id, greatest(s.send_after, clock_timestamp()), s.expires_at,
        case when s.nth = 1 and (s.ordering_id in (select unnest(new_orderings))) is true then s.lane_id else -s.lane_id end,
        s.priority, s.max_attempts, s.ordering_id, nextval('outbox.place_seq')
    from (select p.id, p.send_after, p.expires_at, p.priority, p.max_attempts, o.ordering_id, j.lane_id,
                 row_number() over (partition by o.ordering_id order by p.n) as nth
          from (select u.*, row_number() over () as n from unnest(parsed) as u) as p
          cross join lateral (
              select o.ordering_id from outbox.ordering as o
              where o.key_sha256 = outbox.key_hash(address_key, p.tenant_id, p.queue, p.ordering_key) offset 0) as o
          cross join lateral (select j.lane_id from outbox.job as j where j.id = p.id offset 0) as j
          where p.ordering_key is not null and p.list_job_ids is null and (p.expires_at is null or p.expires_at > at)
            and (p.id in (select unnest(fresh_ids))) is true
          order by p.n
          offset 0) as s;
end
$$;

-- What follows once the head is gone: the next follower becomes the head, or the key's row goes.
-- Never waits for anybody, because an outcome that waits to be recorded holds up all that are recorded
-- with it. False: it cannot be told now (a producer holds the key; the next one is being withdrawn),
-- so somebody has to come back. READ COMMITTED, so each statement sees what was committed before it.
create function outbox.pass_on(of_ordering bigint, after_place bigint) returns boolean
    language plpgsql volatile as $$
declare
    next_id bigint;
begin
    select e.id into next_id from outbox.entry as e
    where e.ordering_id = of_ordering and e.place > after_place
    order by e.place limit 1;
    if found then
        -- Producers that hold the lock have later places, so this is the one.
        perform from outbox.entry as e where e.id = next_id and e.lane_id < 0 for update skip locked;
        if found then
            update outbox.entry as e
            set lane_id = -e.lane_id, available_at = greatest(e.available_at, clock_timestamp())
            where e.id = next_id;
        end if;
        return found;
    end if;
    perform from outbox.ordering as o where o.ordering_id = of_ordering for update skip locked;
    if not found or exists (select from outbox.entry as e where e.ordering_id = of_ordering and e.place > after_place) then
        return false;
    end if;
    delete from outbox.ordering as o where o.ordering_id = of_ordering;
    return true;
end
$$;

-- Whatever ends a head, here its key goes on. A gap is what is left to do: at once by `close_gaps`, or,
-- where a dead-lettered head keeps its followers back, after somebody has replayed or cancelled it.
create function outbox.head_ended() returns trigger
    language plpgsql as $$
begin
    if (select s.ordering_on_failure from outbox.setting as s) = 'hold'
       and exists (select from outbox.delivery as d
                   where d.id = old.id and d.series = old.series and d.terminal and not d.late and d.status = 'FAILED') then
        insert into outbox.ordering_gap (ordering_id, place, dead_id) values (old.ordering_id, old.place, old.id);
    elsif current_setting('transaction_isolation') <> 'read committed'
          or not outbox.pass_on(old.ordering_id, old.place) then
        insert into outbox.ordering_gap (ordering_id, place) values (old.ordering_id, old.place);
    end if;
    return null;
end
$$;
create trigger head_ended after delete on outbox.entry
    for each row when (old.ordering_id is not null and old.lane_id > 0) execute function outbox.head_ended();

-- Put heads where they are missing, and wake dispatchers for them; nobody is kept back for longer than
-- `hold_max_s`. Returns how many gaps it closed; those that cannot be closed yet are left alone. In random
-- turn, so that they keep no other waiting.
create function outbox.close_gaps(gaps_max int, hold_max_s double precision) returns int
    language plpgsql volatile as $$
declare
    gap outbox.ordering_gap;
    closed bigint[] := '{}';
    lanes int[];
begin
    for gap in
        select g.* from outbox.ordering_gap as g
        where g.dead_id is null or (select s.ordering_on_failure from outbox.setting as s) = 'pass'
           or g.since < clock_timestamp() - make_interval(secs => hold_max_s)
        order by random() limit gaps_max for update skip locked
    loop
        if outbox.pass_on(gap.ordering_id, gap.place) then
            delete from outbox.ordering_gap as g where g.ordering_id = gap.ordering_id;
            closed := closed || gap.ordering_id;
        end if;
    end loop;
    lanes := array(select distinct e.lane_id from outbox.entry as e where e.ordering_id = any(closed) and e.lane_id > 0);
    if cardinality(lanes) > 0 then
        perform outbox.ring(lanes);
    end if;
    return cardinality(closed);
end
$$;

-- An ordered job that failed gets a new series: at the head, where it kept its followers back; else at
-- the end, because they have gone past it.
create function outbox.reorder(
    wanted bigint, tenant text, of_queue text, key text, lane int,
    out lane_id int, out ordering_id bigint, out place bigint
)
    language plpgsql volatile as $$
#variable_conflict use_column
declare
    taken record;
begin
    lane_id := lane;
    delete from outbox.ordering_gap as g where g.dead_id = wanted
    returning g.ordering_id, g.place into reorder.ordering_id, reorder.place;
    if not found then
        taken := outbox.take_ordering(tenant, of_queue, outbox.key_hash((select s.address_key from outbox.setting as s),
                                                                        tenant, of_queue, key));
        ordering_id := taken.ordering_id;
        place := nextval('outbox.place_seq');
        if not taken.is_new then
            lane_id := -lane;
        end if;
    end if;
end
$$;

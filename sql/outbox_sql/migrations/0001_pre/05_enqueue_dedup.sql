-- Duplicates by dedup_key: for dedup_window_s after a job was accepted, others of the same tenant,
-- queue and key are not stored. A job that ended without being sent frees its key.

-- Judge the new jobs that have a dedup_key. The key of each stays locked until the transaction ends;
-- they are taken in one order everywhere, so that overlapping batches cannot deadlock.
create function outbox.deduplicate(parsed outbox.parsed[], compared outbox.compared[], at timestamptz, address_key bytea)
    returns outbox.deduplicated
    language plpgsql volatile as $$
#variable_conflict use_column
declare
    news jsonb := (select coalesce(jsonb_object_agg(c.id, jsonb_build_array(c.job_id, c.status)), '{}')
                   from unnest(compared) as c where c.result = 'new');
    wanted record;
    kept_id bigint;
    kept_job uuid;
    kept_status text;
    judged outbox.deduplicated;
    replaced_ids bigint[] := '{}';
    replaced_by uuid[] := '{}';
    changed_ids bigint[] := '{}';
    changed_jobs uuid[] := '{}';
    changed_statuses text[] := '{}';
    changed_results text[] := '{}';
    changes jsonb;
begin
    for wanted in
        select p.id, p.tenant_id, p.job_id, p.job ->> 'dedup_policy' = 'replace' as replaces,
               outbox.key_hash(address_key, p.tenant_id, p.queue, p.dedup_key) as hash,
               at + make_interval(secs => (p.job ->> 'dedup_window_s')::int) as until
        from unnest(parsed) as p
        where p.dedup_key is not null and (p.expires_at is null or p.expires_at > at) and news ? p.id::text
        order by hash, p.ord
    loop
        insert into outbox.dedup as d (key_sha256, tenant_id, id, until)
        values (wanted.hash, wanted.tenant_id, wanted.id, wanted.until)
        on conflict (key_sha256) do update set id = excluded.id, until = excluded.until where d.until <= at;
        continue when found;
        select d.id into kept_id from outbox.dedup as d where d.key_sha256 = wanted.hash;
        if news ? kept_id::text then  -- of this very batch, and not stored yet
            kept_job := news -> kept_id::text ->> 0;
            kept_status := news -> kept_id::text ->> 1;
        else
            select j.job_id, outbox.current_status(j.id) into kept_job, kept_status
            from outbox.job as j where j.id = kept_id;
        end if;
        -- What somebody is claiming or withdrawing right now is not waited for, but kept.
        if kept_status is null or kept_status in ('failed', 'expired', 'cancelled') then
            kept_id := null;
        elsif wanted.replaces and kept_status <> 'sent' then
            perform from outbox.entry as e where e.id = kept_id and e.claimed_by is null for update skip locked;
            if found or news ? kept_id::text then
                replaced_ids := replaced_ids || kept_id;
                replaced_by := replaced_by || wanted.job_id;
                changed_ids := changed_ids || kept_id;
                changed_jobs := changed_jobs || kept_job;
                changed_statuses := changed_statuses || 'cancelled'::text;
                changed_results := changed_results || 'new'::text;
                kept_id := null;
            end if;
        end if;
        if kept_id is null then
            update outbox.dedup as d set id = wanted.id, until = wanted.until where d.key_sha256 = wanted.hash;
        else
            -- Its own job_id leads to the job that was kept: so does sending it once more.
            update outbox.job_key as k set id = kept_id
            where k.tenant_id = wanted.tenant_id and k.job_id = wanted.job_id;
            insert into outbox.dedup_alias (id, tenant_id, job_id) values (kept_id, wanted.tenant_id, wanted.job_id);
            changed_ids := changed_ids || wanted.id;
            changed_jobs := changed_jobs || kept_job;
            changed_statuses := changed_statuses || kept_status;
            changed_results := changed_results || 'duplicate'::text;
        end if;
    end loop;
    select coalesce(jsonb_object_agg(c.id, jsonb_build_array(c.result, c.job, c.status)), '{}') into changes
    from unnest(changed_ids, changed_results, changed_jobs, changed_statuses) as c(id, result, job, status);
    judged.compared := array(
        select case when changes ? c.id::text
                    then (c.ord, c.id, c.tenant_id, (changes -> c.id::text ->> 1)::uuid, c.member,
                          changes -> c.id::text ->> 2, changes -> c.id::text ->> 0, c.job_ids)::outbox.compared
                    else c end
        from unnest(compared) as c);
    judged.replaced_ids := replaced_ids;
    judged.replaced_by := replaced_by;
    return judged;
end
$$;

create function outbox.prune_dedup(keys_max int) returns int
    language plpgsql volatile as $$
declare
    pruned int;
begin
    delete from outbox.dedup as d
    where d.key_sha256 = any(array(select o.key_sha256 from outbox.dedup as o
                                   where o.until < clock_timestamp() order by o.until limit keys_max
                                   for update skip locked));
    get diagnostics pruned = row_count;
    return pruned;
end
$$;

-- What `outbox doctor` looks at: one row about the whole store. `alive_s` is how old a heartbeat may be.
select clock_timestamp() as now,
       session_user::text as login,
       (select r.rolsuper from pg_roles as r where r.rolname = session_user) as is_superuser,
       pg_has_role(session_user, 'outbox_dispatcher', 'member') as may_dispatch,
       pg_has_role(session_user, 'outbox_auditor', 'member') as may_audit,
       current_setting('fsync') = 'on' and current_setting('full_page_writes') = 'on'
           and current_setting('synchronous_commit') <> 'off' as is_durable,
       current_setting('autovacuum') = 'on' as has_autovacuum,
       outbox.partition_days_left() as partition_days_left,
       lag.days as retention_lag_days,
       lag.live as retention_lag_live,
       s.job_bytes_max, s.batch_jobs_max, s.retention_s, s.dead_letter_retention_s, s.timeout_s_max, s.template_check, s.default_locale,
       s.ordering_on_failure,
       (select count(*) from outbox.ordering_gap as g where g.dead_id is not null) as held_orderings,
       (select count(*) from outbox.ordering_gap as g
        where g.dead_id is null and g.since < clock_timestamp() - interval '1 minute') as stuck_orderings,
       (select count(*) from outbox.dispatcher as d
        where not d.fenced and d.rescued_at is null
          and d.heartbeat_at > clock_timestamp() - make_interval(secs => %(alive_s)s)) as dispatchers,
       (select coalesce(array_agg(distinct d.version), '{}') from outbox.dispatcher as d
        where not d.fenced and d.rescued_at is null
          and d.heartbeat_at > clock_timestamp() - make_interval(secs => %(alive_s)s)) as versions,
       array(select q.queue from outbox.queue_pause as q order by q.queue limit 100) as paused_queues,
       array(select l.tenant_id || '/' || l.queue from outbox.lane as l
             where l.own_paused_at is not null and l.scope = ''
             order by l.lane_id limit 100) as paused_lanes,
       array(select format('%%s/%%s%%s since %%s: %%s %%s', l.tenant_id, l.queue, case when l.scope <> '' then ' (' || l.scope || ')' end,
                           to_char(l.held_at at time zone 'utc', 'YYYY-MM-DD HH24:MI"Z"'), l.hold_code, l.hold_reason)
             from outbox.lane as l where l.held_at is not null order by l.held_at limit 100) as held_lanes,
       (select extract(epoch from clock_timestamp() - min(e.available_at))::float8
        from outbox.entry as e join outbox.lane as l on l.lane_id = e.lane_id
        where e.claimed_by is null and e.available_at <= clock_timestamp()
          and l.paused_at is null and l.held_at is null
          and not exists (select from outbox.lane as m where m.tenant_id = l.tenant_id and m.queue = l.queue
                            and m.scope = '' and coalesce(m.concurrency_max, m.rate_per_s) is not null)) as oldest_waiting_s,
       array(select format('%%s %%s', d.name, case
                               when d.breaker = 'open' then format('has an open breaker until %%s UTC', to_char(d.open_until at time zone 'utc', 'HH24:MI:SS'))
                               when d.breaker = 'half_open' then 'has a breaker that is half open'
                               else format('asked for a pause until %%s UTC', to_char(d.paused_until at time zone 'utc', 'HH24:MI:SS')) end)
             from outbox.list_destinations() as d where d.paused_until is not null or d.breaker <> 'closed' limit 100) as shut_destinations,
       array(select format('%%s/%%s: a due job waits for %%s s; %%s', l.tenant_id, l.queue,
                           extract(epoch from clock_timestamp() - e.available_at)::int,
                           concat_ws(', ', l.rate_per_s || ' a second', l.concurrency_max || ' at once'))
             from outbox.lane as l
             cross join lateral (select min(e.available_at) as available_at from outbox.entry as e
                                 where e.lane_id = l.lane_id and e.claimed_by is null) as e
             where coalesce(l.concurrency_max, l.rate_per_s) is not null and l.paused_at is null and l.held_at is null
               and e.available_at < clock_timestamp() - interval '1 min'
             order by e.available_at limit 100) as limited_lanes,
       array(select distinct case when j.channel is null then 'queue ' || j.queue else 'channel ' || j.channel end
             from outbox.lane as l
             cross join lateral (select e.id from outbox.entry as e
                                 where e.lane_id = l.lane_id and e.claimed_by is null
                                   and (e.available_at <= clock_timestamp() or e.waits = 4)
                                 order by e.priority, e.available_at limit 1) as e
             join outbox.job as j on j.id = e.id
             where l.paused_at is null and l.held_at is null
               and not exists (select from outbox.dispatcher as d
                               where not d.fenced and d.rescued_at is null
                                 and d.heartbeat_at > clock_timestamp() - make_interval(secs => %(alive_s)s)
                                 and (d.queues is null or j.queue = any(d.queues))
                                 and coalesce('channel:' || j.channel, 'queue:' || j.queue) = any(d.handlers))
             limit 100) as unserved,
       (select count(*) from outbox.dead_letter as d where d.replayed_at is null) as dead_letters,
       exists (select from outbox.api_key as k
               where k.revoked_at is null and (k.expires_at is null or k.expires_at > clock_timestamp())) as has_keys,
       array(select format('%%s (%%s, %%s) keeps %%s of WAL%%s%%s', r.slot_name, r.slot_type,
                           case when r.active then 'in use' else 'nobody reads it' end,
                           coalesce(pg_size_pretty(r.kept_bytes), 'nothing'),
                           case when r.xmin is not null
                                then format(', and every dead row of the last %%s transactions', age(r.xmin)) end,
                           case when r.wal_status in ('unreserved', 'lost') then format('; it is %%s', r.wal_status) end)
             from (select s.*, pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
                                                    else pg_current_wal_lsn() end, s.restart_lsn) as kept_bytes
                   from pg_replication_slots as s where not s.temporary) as r
             where not r.active or r.wal_status in ('unreserved', 'lost') or r.kept_bytes > %(slot_bytes)s
                or age(r.xmin) > %(slot_xids)s
             order by r.kept_bytes desc nulls last limit 100) as slots,
       array(select format('%%L of %%s, for %%s s', p.gid, p.owner, extract(epoch from clock_timestamp() - p.prepared)::int)
             from pg_prepared_xacts as p
             where p.database = current_database() and p.prepared <= clock_timestamp() - make_interval(secs => %(prepared_s)s)
             order by p.prepared limit 100) as prepared,
       oldest.pid as oldest_pid,
       extract(epoch from clock_timestamp() - oldest.xact_start)::float8 as oldest_transaction_s
from outbox.setting as s
left join lateral (select l.days, l.live from outbox.retention_lag() as l) as lag on true
left join lateral (select a.pid, a.xact_start from pg_stat_activity as a
                   where a.backend_xmin is not null and a.datname = current_database() and a.pid <> pg_backend_pid()
                   order by a.xact_start limit 1) as oldest on true

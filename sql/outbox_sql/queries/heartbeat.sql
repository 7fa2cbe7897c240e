-- Say that this dispatcher lives, fence those that don't, and learn whether lanes or destinations have
-- changed, how many dispatchers there are, whether an ordering_key stands still, or dead letters are to be
-- replayed, whether a round of alerts is due, and how far `post` has come.
-- Dead: no heartbeat for a lease; or none for 2.5 s and no advisory lock (its connection is gone),
-- unless it never had one: behind a pooler there is none.
-- Skip locked: two dispatchers that look at each other must not wait for each other.
with beat as (
    update outbox.dispatcher
    set heartbeat_at = clock_timestamp(),
        seen_version = %(seen_version)s
    where epoch = %(epoch)s and not fenced
    returning 1
), suspects as (
    select d.epoch
    from outbox.dispatcher as d
    where not d.fenced and d.rescued_at is null and d.epoch <> %(epoch)s
      and (d.heartbeat_at < clock_timestamp() - make_interval(secs => d.lease_s)
           or d.locks and d.heartbeat_at < clock_timestamp() - interval '2.5 s'
              and not exists (
                  select from pg_locks as l
                  where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                    and l.database = (select oid from pg_database where datname = current_database())
                    and l.classid::bigint = d.epoch >> 32 and l.objid::bigint = d.epoch & 4294967295))
    for update skip locked
), buried as (
    update outbox.dispatcher as d
    set fenced = true
    from suspects as s
    where d.epoch = s.epoch
    returning d.epoch
)
select exists (select from beat) as alive,
       c.version,
       (select max(lane_id) from outbox.lane) as newest_lane,
       array(select epoch from buried
             union select d.epoch from outbox.dispatcher as d where d.fenced and d.rescued_at is null) as to_rescue,
       clock_timestamp() as now,
       (select count(*) from outbox.dispatcher as d where not d.fenced and d.rescued_at is null) as alive_count,
       exists (select from outbox.ordering_gap) as gaps,
       exists (select from outbox.replay_run as r where r.state = 'running') as replays,
       (select min(s.next_at) from outbox.schedule as s where s.enabled and s.next_at is not null) as next_fire,
       (select r.next_at <= clock_timestamp() from outbox.alert_round as r) as alerts_due,
       c.destinations,
       (outbox.schema_revisions()).post as post_revision
from outbox.control as c

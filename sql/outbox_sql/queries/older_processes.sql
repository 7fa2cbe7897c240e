-- Living processes whose code knows less of the schema than a `post` part asks for, which must wait for them.
-- An API that went in order took its row along; another is believed for %(silent_s)s seconds.
select distinct 'dispatcher ' || d.name || ' (' || d.version || ')' as process
from outbox.dispatcher as d
where not d.fenced and d.rescued_at is null and d.schema_revision < %(revision)s
  and d.heartbeat_at > clock_timestamp() - make_interval(secs => d.lease_s)
union
select distinct 'api ' || p.name || ' (' || p.version || ')'
from outbox.api_process as p
where p.schema_revision < %(revision)s
  and p.heartbeat_at > clock_timestamp() - make_interval(secs => %(silent_s)s)
order by 1

-- What waits, accepted within the last two days: retries, what is for later, what lies in a paused lane.
with made as materialized (
    select n, outbox.id_floor(clock_timestamp() - n * interval '48 hours' / %(waiting)s) + 3000000 + n as id,
           gen_random_uuid() as job_id, case when n %% 3 = 0 then 'default' else 'tenant-' || 2 + n %% (%(tenants)s - 1) end as tenant_id,
           case n %% 4 when 0 then 'sms' when 1 then 'push' else 'email' end as queue
    from generate_series(1, %(waiting)s) as n
), keys as (
    insert into outbox.job_key (tenant_id, job_id, id, content_sha256) select m.tenant_id, m.job_id, m.id, '' from made as m
), jobs as (
    insert into outbox.job (id, job_id, created_at, lane_id, priority, tenant_id, queue, channel, template_code, user_id, job)
    select m.id, m.job_id, outbox.id_time(m.id), l.lane_id, 1, m.tenant_id, m.queue, m.queue, 'template-' || m.n %% 20,
           'user-' || m.n, '{"data": {}}'
    from made as m join outbox.lane as l on l.tenant_id = m.tenant_id and l.queue = m.queue and l.scope = ''
)
insert into outbox.entry (id, available_at, lane_id, priority, waits)
select m.id, case when m.n %% 2 = 0 then clock_timestamp() + interval '1 day' else outbox.id_time(m.id) end, l.lane_id, 1, 0
from made as m join outbox.lane as l on l.tenant_id = m.tenant_id and l.queue = m.queue and l.scope = ''

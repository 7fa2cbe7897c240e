-- A quarter of the jobs come from the largest of the tenants, the hours of a day are alike, a fifth
-- belongs to the campaign of the day or of the month. What becomes of a job is drawn: `fate`.
with drawn as materialized (
    select n, outbox.id_floor(%(from)s::timestamptz + (%(to)s::timestamptz - %(from)s::timestamptz)
                              * ((n - 1)::float8 / %(jobs)s)) + n as id,
           gen_random_uuid() as job_id,
           1 + floor(%(tenants)s * random() * random())::int as tenant,
           (array['email', 'email', 'email', 'email', 'push', 'push', 'push', 'in_app', 'webhook', 'sms']
            )[1 + floor(10 * random())::int] as queue,
           floor(power(random(), 2) * %(users)s)::int as usr,
           random() as fate, random() as took, random() as campaign
    from generate_series(1, %(jobs)s) as n
), made as materialized (
    select d.*, outbox.id_time(d.id) as at, case d.tenant when 1 then 'default' else 'tenant-' || d.tenant end as tenant_id,
           case when d.fate < 0.945 then 1 when d.fate < 0.975 then 2 when d.fate < 0.985 then 3 else 1 end as tries
    from drawn as d
), keys as (
    insert into outbox.job_key (tenant_id, job_id, id, content_sha256)
    select m.tenant_id, m.job_id, m.id, '' from made as m
), jobs as (
    insert into outbox.job (id, job_id, created_at, expires_at, lane_id, priority, tenant_id, queue, channel,
        template_code, locale, user_id, event_id, campaign_id, job)
    select m.id, m.job_id, m.at, case when m.fate >= 0.99 and m.fate < 0.995 then m.at + interval '1 hour' end, l.lane_id, 1,
           m.tenant_id, m.queue, m.queue, 'template-' || m.n %% 20, case when m.usr %% 3 = 0 then 'ru' else 'en' end,
           'user-' || m.usr, 'event-' || to_char(m.at, 'YYYYMMDD') || '-' || m.n / 3,
           case when m.campaign < 0.15 then 'daily-' || to_char(m.at, 'YYYYMMDD')
                when m.campaign < 0.2 then 'monthly-' || to_char(m.at, 'YYYYMM') end,
           jsonb_build_object('queue', m.queue, 'channel', m.queue, 'user_id', 'user-' || m.usr, 'data',
                              jsonb_build_object('name', 'User ' || m.usr, 'text', repeat('x', 200)))
    from made as m join outbox.lane as l on l.tenant_id = m.tenant_id and l.queue = m.queue and l.scope = ''
), attempts as materialized (
    select m.*, a.attempt, a.attempt = m.tries as last,
           case when m.fate >= 0.99 and m.fate < 0.995 then 'EXPIRED'
                when m.fate >= 0.995 and m.fate < 0.998 then 'CANCELLED'
                when a.attempt < m.tries then 'RETRYING'
                when m.fate >= 0.975 and m.fate < 0.99 then 'FAILED' else 'SENT' end as status,
           m.at + make_interval(secs => 0.02 + m.took * m.took * 3 + case a.attempt when 1 then 0 when 2 then 30 else 150 end)
               as started_at
    from made as m cross join lateral generate_series(1, m.tries) as a(attempt)
), history as (
    insert into outbox.delivery (id, started_at, finished_at, next_attempt_at, recipient_hash, lease_no, lane_id, duration_ms,
        template_version, series, attempt, terminal, status, tenant_id, provider, provider_message_id, recipient, subject,
        locale, error_class, error_code, error_message, content_sha256)
    select a.id, case when a.status not in ('EXPIRED', 'CANCELLED') then a.started_at end,
           a.started_at + make_interval(secs => a.took / 2), case when not a.last then a.started_at + interval '30 seconds' end,
           h.hash, a.attempt, l.lane_id, (a.took * 500)::int, 3, 1, case when a.status in ('EXPIRED', 'CANCELLED') then 0 else a.attempt end,
           a.last, a.status, a.tenant_id, case when a.status not in ('EXPIRED', 'CANCELLED') then a.queue || '-provider' end,
           case when a.status = 'SENT' then '<' || a.job_id || '@example.com>' end, 'user-' || a.usr || '@example.com',
           'Your order has shipped', 'en',
           case a.status when 'RETRYING' then 'temporary' when 'FAILED' then case a.tries when 1 then 'permanent' else 'temporary' end
                         when 'EXPIRED' then 'expired' when 'CANCELLED' then 'cancelled' end,
           case a.status when 'RETRYING' then case a.n %% 40 when 0 then 'lease.lost' when 1 then 'smtp.lost' else 'http.' || 500 + a.n %% 4 end
                         when 'FAILED' then case a.tries when 1 then 'smtp.mailbox' else 'http.503' end
                         when 'EXPIRED' then 'job.expired' when 'CANCELLED' then 'job.cancelled' end,
           case when a.status <> 'SENT' then 'the receiver said what it says when something is wrong' end,
           sha256(a.job_id::text::bytea)
    from attempts as a
    join lateral (select ('x' || encode(substr(sha256(%(address_key)s || convert_to('user-' || a.usr || '@example.com', 'UTF8')), 1, 8), 'hex'))
                         ::bit(64)::bigint as hash) as h on true
    join outbox.lane as l on l.tenant_id = a.tenant_id and l.queue = a.queue and l.scope = ''
), dead as (
    insert into outbox.dead_letter (failed_at, id, job_id, series, attempts, tenant_id, queue, reason, error_class,
        error_code, error_message, job, replayed_at, replayed_by)
    select a.started_at, a.id, a.job_id, 1, a.attempt, a.tenant_id, a.queue,
           case a.tries when 1 then 'permanent' else 'exhausted' end, 'permanent',
           case a.tries when 1 then 'smtp.mailbox' else 'http.503' end, 'the receiver said what it says when something is wrong',
           jsonb_build_object('job_id', a.job_id, 'queue', a.queue, 'template_code', 'template-' || a.n %% 20),
           case when a.n %% 10 = 0 then a.started_at + interval '1 hour' end, case when a.n %% 10 = 0 then 'kim' end
    from attempts as a where a.status = 'FAILED'
), replayed as (
    insert into outbox.operator_action (at, actor, action, tenant_id, id, detail)
    select a.started_at + interval '1 hour', 'kim', 'replay', a.tenant_id, a.id,
           jsonb_build_object('series', 2, 'reason', 'the mailbox is there again')
    from attempts as a where a.status = 'FAILED' and a.n %% 10 = 0
)
-- A replayed one is sent in its second series.
insert into outbox.delivery (id, started_at, finished_at, recipient_hash, lease_no, duration_ms, series, attempt,
    terminal, status, tenant_id, provider, recipient)
select a.id, a.started_at + interval '1 hour', a.started_at + interval '1 hour', null, 9, 5, 2, 1, true, 'SENT', a.tenant_id,
       a.queue || '-provider', 'user-' || a.usr || '@example.com'
from attempts as a where a.status = 'FAILED' and a.n %% 10 = 0

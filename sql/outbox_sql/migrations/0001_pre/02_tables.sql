-- The tables of store.md 1. Invariants and reasons are in sql/outbox_sql/README.md.

-- What the database itself enforces; one row, written by `outbox migrate` from the settings.
create table outbox.setting (
    only_row          boolean     primary key default true check (only_row),
    job_bytes_max     int         not null default 262144 check (job_bytes_max >= 4096),
    batch_jobs_max    int         not null default 10000,
    retention_s       int         not null default 7776000,
    dead_letter_retention_s int   not null default 15552000,
    timeout_s_max     int         not null default 50,
    template_check    boolean     not null default true,
    default_locale    text        not null default 'en',
    ordering_on_failure text      not null default 'pass' check (ordering_on_failure in ('pass', 'hold')),
    address_key       bytea       not null default sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))
);
insert into outbox.setting default values;

-- Counts every change of lanes: a dispatcher that has seen version n has seen all changes up to n.
-- One row, so that versions commit in their order. `catalog` counts the changes of tenants,
-- providers and endpoints, each of which is a new version as well; `destinations` those of destinations.
create table outbox.control (
    only_row          boolean     primary key default true check (only_row),
    version           bigint      not null default 1,
    catalog           bigint      not null default 1,
    destinations      bigint      not null default 1
);
insert into outbox.control default values;

create table outbox.tenant (
    tenant_id         text        primary key check (char_length(tenant_id) between 1 and 128),
    default_locale    text,
    timezone          text,
    sender            text,
    phone_region      text        check (phone_region ~ '^[A-Z]{2}$'),
    -- True: nothing of this tenant's goes out by the operator's own providers.
    own_providers     boolean     not null default false,
    -- When its messages of a category ('*': of any) may go out: {category: {from, to, days}}.
    send_windows      jsonb       not null default '{}',
    -- Its own rows of the tables of errors, in order (outbox/error_rules.py).
    error_rules       jsonb       not null default '[]',
    created_at        timestamptz not null default clock_timestamp()
);
insert into outbox.tenant (tenant_id) values ('default');

-- Who delivers a tenant's messages of a channel, in the order of `preference`. Credentials are
-- encrypted (AES-GCM) under the key that `key_id` names; nobody but a dispatcher decrypts them.
create table outbox.provider (
    provider_id       uuid        primary key default gen_random_uuid(),
    tenant_id         text        not null,
    channel           text        not null,
    kind              text        not null,
    name              text        not null check (char_length(name) between 1 and 64),
    preference        smallint    not null default 100,
    config            jsonb       not null default '{}',
    credentials       bytea,
    key_id            text,
    enabled           boolean     not null default true,
    -- How it tells us later what became of a message; null: it does not.
    receipts          text        check (receipts in ('standard', 'twilio', 'sendgrid', 'postmark')),
    created_at        timestamptz not null default clock_timestamp(),
    updated_at        timestamptz not null default clock_timestamp(),
    unique (tenant_id, channel, name),
    check ((credentials is null) = (key_id is null))
);

-- Which database role may enqueue for which tenant ('*': for all).
create table outbox.producer_tenant (
    role_name         text        not null,
    tenant_id         text        not null,
    primary key (role_name, tenant_id)
);
insert into outbox.producer_tenant (role_name, tenant_id)
values ('outbox_producer', 'default'), ('outbox_api', '*'), ('outbox_dispatcher', '*');

create table outbox.api_key (
    key_id            uuid        primary key default gen_random_uuid(),
    name              text        not null,
    key_sha256        bytea       not null unique,
    prefix            text        not null,
    tenant_id         text        not null,  -- '*': service-wide
    scopes            text[]      not null check (scopes <@ array['jobs:write', 'jobs:read', 'admin']),
    -- What a test key hands in goes to the sink, on every channel; it manages nothing.
    mode              text        not null default 'live' check (mode in ('live', 'test')),
    created_at        timestamptz not null default clock_timestamp(),
    expires_at        timestamptz,
    last_used_at      timestamptz,
    revoked_at        timestamptz,
    check (mode = 'live' or not 'admin' = any(scopes))
);

-- A webhook's registered address. `secrets` is an encrypted list of {secret, until}. Events of
-- `event_types` are sent there by themselves; jobs may name the endpoint besides.
create table outbox.endpoint (
    endpoint_id       uuid        primary key default gen_random_uuid(),
    tenant_id         text        not null,
    url               text        not null,
    description       text,
    event_types       text[]      not null default '{}',
    secrets           bytea       not null,
    key_id            text        not null,
    enabled           boolean     not null default true,
    disabled_reason   text,
    created_at        timestamptz not null default clock_timestamp(),
    updated_at        timestamptz not null default clock_timestamp()
);
create index endpoint_tenant on outbox.endpoint (tenant_id, endpoint_id);

-- What can be delivered here: channels and queues that have a handler installed.
create table outbox.handler (
    kind              text        not null check (kind in ('channel', 'queue')),
    name              text        not null,
    seen_at           timestamptz not null default clock_timestamp(),
    primary key (kind, name)
);

-- One tenant x one queue; `scope` is not empty for a narrower lane: a hold's (template:…, endpoint:…, job:…), or
-- what waits for the rate of a destination (destination:…), or test jobs (test; test:… for their own holds), whose trouble is nobody else's. Limits stand at the lane without a scope, for all of them.
create table outbox.lane (
    lane_id           int         generated always as identity primary key,
    tenant_id         text        not null,
    queue             text        not null,
    scope             text        not null default '',
    weight            smallint    not null default 1 check (weight between 1 and 1000),
    concurrency_max   int         check (concurrency_max between 1 and 100000),
    rate_per_s        double precision check (rate_per_s between 0.001 and 1000000),
    burst             int         check (burst between 1 and 1000000),
    -- The pause that is in force: the whole queue's (queue_pause), or this lane's own.
    paused_at         timestamptz,
    paused_by         text,
    own_paused_at     timestamptz,
    own_paused_by     text,
    held_at           timestamptz,
    hold_code         text,
    hold_reason       text,
    probe_at          timestamptz,
    probe_s           int,
    probe_until       timestamptz,  -- until then a probe may still be running somewhere
    version           bigint      not null default 0,
    unique (tenant_id, queue, scope)
);
create index lane_held on outbox.lane (probe_at) where held_at is not null;

-- A host, an endpoint or a provider (host:…, endpoint:…, provider:…), over all tenants: its rate, which an operator
-- has set, the pause that its own Retry-After has asked for, and its breaker.
create table outbox.destination (
    name              text        primary key check (name ~ '^(host|endpoint|provider):[!-~]{1,255}$'),
    rate_per_s        double precision check (rate_per_s between 0.001 and 1000000),
    burst             int         check (burst between 1 and 1000000),
    paused_until      timestamptz,
    -- The circuit breaker: null, or it is open until then and half open afterwards; `probe_until`: one is tried.
    opened_at         timestamptz,
    open_until        timestamptz,
    open_s            double precision,
    probe_until       timestamptz,
    changed_at        timestamptz not null default clock_timestamp()
);
-- What the last minute's attempts of one dispatcher came to, for destinations in trouble.
create table outbox.destination_health (
    name              text        not null check (name ~ '^(host|endpoint|provider):[!-~]{1,255}$'),
    epoch             bigint      not null,
    good              int         not null,
    bad               int         not null,
    told_at           timestamptz not null default clock_timestamp(),
    primary key (name, epoch)
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);

-- The tokens of a rate: a lane's (lane:ID), or a destination's. Dispatchers take slices for a second or so.
create table outbox.bucket (
    name              text        primary key,
    tokens            double precision not null default 'infinity',  -- never more than a burst when it is read
    filled_at         timestamptz not null default clock_timestamp()
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);

-- How many places of a lane's concurrency_max a dispatcher has. It has them until it gives them back, or until it
-- is dead and nothing of its is claimed any more.
create table outbox.lane_share (
    lane_id           int         not null,
    epoch             bigint      not null,
    places            int         not null,
    wanted            int         not null,
    primary key (lane_id, epoch)
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);

-- A queue's pause holds for lanes that don't exist yet as well.
create table outbox.queue_pause (
    queue             text        primary key,
    paused_at         timestamptz not null default clock_timestamp(),
    paused_by         text        not null
);

create sequence outbox.id_seq as bigint cache 32;

-- Every (tenant, job_id) ever accepted. The key of a list of addresses has no job of its own.
create table outbox.job_key (
    tenant_id         text        not null,
    job_id            uuid        not null,
    id                bigint      not null,
    content_sha256    bytea       not null,
    primary key (tenant_id, job_id)
) partition by hash (tenant_id, job_id);
do $$
begin
    for i in 0..7 loop
        execute format('create table outbox.job_key_%s partition of outbox.job_key
                        for values with (modulus 8, remainder %s)', i, i);
    end loop;
end
$$;

-- The immutable facts of a job. Never updated, but for erasure.
create table outbox.job (
    id                bigint      not null primary key,
    job_id            uuid        not null,
    created_at        timestamptz not null,
    send_after        timestamptz,
    expires_at        timestamptz,
    lane_id           int         not null,
    priority          smallint    not null check (priority in (0, 1, 5, 10)),
    -- Handed in by a test key, or by a transaction that says so: delivered to the sink alone.
    test              boolean     not null default (current_setting('outbox.mode', true) is not distinct from 'test'),
    tenant_id         text        not null,
    queue             text        not null,
    channel           text,
    template_code     text,
    locale            text,
    user_id           text,
    event_id          text,
    campaign_id       text,
    category          text,
    traceparent       text,
    resend_of         uuid,
    list_job_id       uuid,
    -- Who follows what happens (stream_jobs.sql) tells by it what a transaction has added that commits late.
    xid               xid8        not null default pg_current_xact_id(),
    job               jsonb       not null
) partition by range (id);
-- The user first: who sees all tenants names none.
create index job_user on outbox.job (user_id, tenant_id, id) where user_id is not null;
create index job_event on outbox.job (event_id) where event_id is not null;
create index job_campaign on outbox.job (campaign_id) where campaign_id is not null;
create index job_list on outbox.job (list_job_id) where list_job_id is not null;

-- A live job's place in line. Narrow and hot: a claim must stay a HOT update, so no index names
-- a column that a claim changes, and pages keep room for the second version of each row, which has
-- three columns more: at a fillfactor of 50 a fifth of the claims were no HOT updates.
create table outbox.entry (
    id                bigint      not null primary key,
    available_at      timestamptz not null,
    expires_at        timestamptz,
    lease_until       timestamptz,
    claimed_at        timestamptz,
    claimed_by        bigint,
    -- With an ordering_key: which key, and the place in its order (05_enqueue_ordering.sql).
    ordering_id       bigint,
    place             bigint,
    lane_id           int         not null,
    lease_no          int         not null default 0,
    priority          smallint    not null check (priority in (0, 1, 5, 10)),
    series            smallint    not null default 1,
    attempt           smallint    not null default 0,
    max_attempts      smallint,
    crashes           smallint    not null default 0,
    -- What available_at waits for: 0 the producer's send_after, 1 a backoff, 2 a snooze, 3 the pause of a
    -- destination, 4 a dispatcher that has the handler.
    waits             smallint    not null default 0 check (waits between 0 and 4),
    cancel            boolean     not null default false,
    -- Its recipient was erased while an attempt ran: its outcome leaves nothing personal behind.
    erased            boolean     not null default false
) with (fillfactor = 42, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 2000,
        autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_scale_factor = 0.2);
create index entry_claim on outbox.entry (lane_id, priority, available_at, id);
create index entry_expiry on outbox.entry (expires_at) where expires_at is not null;
create index entry_order on outbox.entry (ordering_id, place) where ordering_id is not null;

-- How far the attempt that runs says it has come; nothing of those that say nothing. A row is worth what its lease
-- is: of another one than the entry's it counts for nothing, and goes. No history: each report replaces the last.
create table outbox.progress (
    id                bigint      not null primary key,
    at                timestamptz not null default clock_timestamp(),
    xid               xid8        not null default pg_current_xact_id(),
    done              double precision not null check (done between 0 and total),
    total             double precision not null check (total > 0 and total < 'infinity'),
    lease_no          int         not null,
    tenant_id         text        not null,
    note              text        check (char_length(note) <= 200)
) with (fillfactor = 50, autovacuum_vacuum_threshold = 200, autovacuum_vacuum_cost_delay = 0);
-- Who follows looks at the last seconds alone, however long an old snapshot keeps what was before.
create index progress_at on outbox.progress (at);

-- An ordering_key of one tenant's queue that has jobs which have not ended. Producers lock its row.
create table outbox.ordering (
    ordering_id       bigint      generated always as identity primary key,
    tenant_id         text        not null,
    queue             text        not null,
    key_sha256        bytea       not null unique
);
-- Places are taken under that lock, so no session may keep some for later.
create sequence outbox.place_seq as bigint cache 1;

-- A key that has jobs but no head: until somebody looks again, or (`dead_id`) deals with the dead-lettered
-- head that keeps the others back.
create table outbox.ordering_gap (
    ordering_id       bigint      primary key,
    place             bigint      not null,
    dead_id           bigint,
    since             timestamptz not null default clock_timestamp()
);
create index ordering_gap_dead on outbox.ordering_gap (dead_id) where dead_id is not null;

-- The job that a dedup_key stands for, and until when.
create table outbox.dedup (
    key_sha256        bytea       primary key,
    tenant_id         text        not null,
    id                bigint      not null,
    until             timestamptz not null
);
create index dedup_until on outbox.dedup (until);
-- The job_ids of duplicates, whose keys lead to that job, and go with it.
create table outbox.dedup_alias (
    id                bigint      not null,
    tenant_id         text        not null,
    job_id            uuid        not null,
    primary key (id, tenant_id, job_id)
);

-- One attempt and its outcome, or a terminal event. Append-only.
create table outbox.delivery (
    id                bigint      not null,
    started_at        timestamptz,
    finished_at       timestamptz not null,
    next_attempt_at   timestamptz,
    epoch             bigint,
    recipient_hash    bigint,
    lease_no          int         not null,
    lane_id           int,        -- null of what came late
    duration_ms       int,
    template_version  int,
    series            smallint    not null,
    attempt           smallint    not null,
    late              boolean     not null default false,
    terminal          boolean     not null,
    status            text        not null check (status in ('SENT', 'FAILED', 'RETRYING', 'EXPIRED', 'CANCELLED')),
    tenant_id         text        not null,
    provider          text,
    provider_message_id text,
    recipient         text,
    subject           text,
    locale            text,
    error_class       text,
    error_code        text,
    error_message     text,
    content_sha256    bytea,
    content           bytea
) partition by range (id);
-- These two let the database itself hold the promise: a lease is recorded once (and once late),
-- and a series ends once.
create unique index delivery_lease on outbox.delivery (id, lease_no, late);
create unique index delivery_end on outbox.delivery (id, series) where terminal and not late;
create index delivery_recipient on outbox.delivery (recipient_hash, id) where recipient_hash is not null;
-- What did not go well, for reports and searches: what did is no part of it, and costs nothing here.
create index delivery_trouble on outbox.delivery (status, id) where late or status <> 'SENT';

create table outbox.dead_letter (
    dead_letter_id    bigint      generated always as identity primary key,
    failed_at         timestamptz not null default clock_timestamp(),
    id                bigint,
    job_id            uuid,
    series            smallint,
    attempts          smallint,
    tenant_id         text        not null,
    queue             text,
    reason            text        not null check (reason in ('exhausted', 'permanent', 'invalid', 'manual')),
    error_class       text,
    error_code        text,
    error_message     text        not null,
    test              boolean     not null default false,
    job               jsonb,
    raw_value         text,
    replayed_at       timestamptz,
    replayed_by       text,
    check ((job is null) <> (raw_value is null))
);
create index dead_letter_newest on outbox.dead_letter (tenant_id, dead_letter_id);
create index dead_letter_job on outbox.dead_letter (id) where id is not null;
-- Counted every few seconds (store_gauges.sql).
create index dead_letter_open on outbox.dead_letter (queue, reason, tenant_id) where replayed_at is null;

-- A replay of the dead letters that fit a filter, begun by an operator and gone through by dispatchers, the
-- oldest first. What lies at or below `reached` is dealt with; `newest` was there when it began.
create table outbox.replay_run (
    run_id            uuid        primary key,
    tenant_id         text        not null,  -- whose dead letters; '*': everybody's
    filter            jsonb       not null,
    rate_per_s        double precision check (rate_per_s between 0.001 and 100000),
    jobs_max          int         check (jobs_max > 0),
    state             text        not null default 'running' check (state in ('running', 'done', 'stopped')),
    plan              jsonb       not null,
    newest            bigint      not null,
    reached           bigint      not null default 0,
    tokens            double precision not null default 1,
    stepped_at        timestamptz not null default clock_timestamp(),
    replayed          int         not null default 0,
    expired           int         not null default 0,
    duplicate         int         not null default 0,
    suppressed        int         not null default 0,
    gone              int         not null default 0,
    begun_at          timestamptz not null default clock_timestamp(),
    begun_by          text        not null,
    reason            text,
    ended_at          timestamptz,
    stopped_by        text
);
create index replay_run_running on outbox.replay_run (stepped_at) where state = 'running';
create index replay_run_newest on outbox.replay_run (begun_at, run_id);

-- Work that comes by the clock: a job to hand in, or ended jobs to clean. Any dispatcher fires it, and moves
-- `next_at` in the same transaction; a job's id follows from schedule and fire time besides.
create table outbox.schedule (
    schedule_id       uuid        primary key default gen_random_uuid(),
    tenant_id         text        not null,
    name              text        not null check (char_length(name) between 1 and 128),
    trigger           jsonb       not null,
    timezone          text        not null default 'UTC',
    job               jsonb,
    clean             jsonb,
    expires_after_s   int         check (expires_after_s > 0),
    misfire           text        not null default 'once' check (misfire in ('skip', 'once', 'all')),
    misfire_grace_s   int         not null default 60 check (misfire_grace_s >= 1),
    enabled           boolean     not null default true,
    next_at           timestamptz,
    fired_at          timestamptz,
    last_job_id       uuid,
    last_error        text,
    last_error_at     timestamptz,
    fires             bigint      not null default 0,
    missed            bigint      not null default 0,
    created_at        timestamptz not null default clock_timestamp(),
    updated_at        timestamptz not null default clock_timestamp(),
    updated_by        text        not null,
    unique (tenant_id, name),
    check ((job is null) <> (clean is null))
);
create index schedule_next on outbox.schedule (next_at) where enabled and next_at is not null;

-- A running dispatcher process.
create table outbox.dispatcher (
    epoch             bigint      primary key,
    name              text        not null,
    version           text        not null,
    pid               int         not null,
    queues            text[],
    handlers          text[]      not null default '{}',  -- channel:NAME, queue:NAME
    started_at        timestamptz not null default clock_timestamp(),
    heartbeat_at      timestamptz not null default clock_timestamp(),
    seen_version      bigint      not null default 0,
    lease_s           double precision not null default 60,
    locks             boolean     not null default true,
    schema_revision   int         not null default 0,  -- the newest that its code knows
    fenced            boolean     not null default false,
    rescued_at        timestamptz
);

-- A running API process, for as long as its heartbeat is young. It has no part in any job: a `post`
-- migration waits until none is left whose code knows less than it.
create table outbox.api_process (
    process_id        bigint      primary key,
    name              text        not null,
    version           text        not null,
    schema_revision   int         not null,
    pid               int         not null,
    started_at        timestamptz not null default clock_timestamp(),
    heartbeat_at      timestamptz not null default clock_timestamp()
);

-- An API process that has a WebSocket of the user open. Counts for as long as the process's heartbeat is young.
create table outbox.socket (
    tenant_id         text        not null,
    user_id           text        not null,
    process_id        bigint      not null,
    primary key (tenant_id, user_id, process_id)
);
create index socket_process on outbox.socket (process_id);
-- A message on its way to such a process, and its acknowledgement on the way back: for seconds, so it need not
-- outlive a crash. A row for each process that has a socket of the user.
create unlogged table outbox.socket_message (
    message_id        bigint      generated always as identity primary key,
    attempt_id        uuid        not null,
    job_id            uuid        not null,
    process_id        bigint      not null,
    tenant_id         text        not null,
    user_id           text        not null,
    body              text        not null,
    created_at        timestamptz not null default clock_timestamp(),
    handed_at         timestamptz,
    taken_at          timestamptz
);
create index socket_message_attempt on outbox.socket_message (attempt_id);
create index socket_message_process on outbox.socket_message (process_id, message_id);

-- What a provider told us after it took a message. Append-only.
create table outbox.receipt (
    receipt_id        bigint      generated always as identity primary key,
    id                bigint      not null,
    tenant_id         text        not null,
    status            text        not null,
    at                timestamptz not null,
    provider          text,
    detail            text
);
create unique index receipt_job on outbox.receipt (id, status);

-- What was sent by a provider that will tell what became of it. `told`: it has, or we have marked it
-- as missing.
create table outbox.receipt_expected (
    id                bigint      primary key,
    tenant_id         text        not null,
    provider_id       uuid        not null,
    provider_message_id text,
    expected_at       timestamptz not null default clock_timestamp(),
    told              boolean     not null default false
);
create index receipt_expected_message on outbox.receipt_expected (provider_id, provider_message_id);
create index receipt_expected_untold on outbox.receipt_expected (expected_at) where not told;

-- Counts and a latency histogram for one second, lane and dispatcher; appended, rolled up later.
create table outbox.stat_second (
    at                timestamptz not null,
    epoch             bigint,
    duration_ms_sum   bigint      not null default 0,
    lane_id           int         not null,
    sent              int         not null default 0,
    failed            int         not null default 0,
    retrying          int         not null default 0,
    expired           int         not null default 0,
    cancelled         int         not null default 0,
    rescued           int         not null default 0,
    late              int         not null default 0,
    pickup_ms_sum     bigint      not null default 0,
    durations         int[],
    pickups           int[],
    arrivals          int[],      -- of what was sent: from when it might first be, to when it was (outbox/telemetry.py)
    attempts          jsonb       -- [[provider, outcome, error_class, how many]…]
);
create index stat_second_at on outbox.stat_second (at);
-- Besides: whose rows of history these counts are of, (id, lease_no) each, in two lists of one order (below zero: after
-- this lease a new series was begun). So history can be followed by the time at which it was written without an index of its own.
alter table outbox.stat_second
    add column xid       xid8     not null default pg_current_xact_id(),
    add column ids       bigint[],
    add column lease_nos int[];
-- The same, when the seconds are rolled up.
create table outbox.outcome_log (
    at                timestamptz not null,
    xid               xid8        not null,
    lane_id           int         not null,
    ids               bigint[]    not null,
    lease_nos         int[]       not null
);
create index outcome_log_at on outbox.outcome_log (at);
-- As long as history is kept: what reports over weeks read instead of it.
create table outbox.stat_hour (
    at                timestamptz not null,
    lane_id           int         not null,
    sent              bigint      not null default 0,
    failed            bigint      not null default 0,
    retrying          bigint      not null default 0,
    expired           bigint      not null default 0,
    cancelled         bigint      not null default 0,
    rescued           bigint      not null default 0,
    late              bigint      not null default 0,
    durations         int[],
    pickups           int[],
    arrivals          int[],
    primary key (at, lane_id)
);
-- Two days of them, for plots of one day.
create table outbox.stat_quarter (like outbox.stat_hour including all);
create table outbox.stat_total (
    lane_id           int         primary key,
    sent              bigint      not null default 0,
    failed            bigint      not null default 0,
    retrying          bigint      not null default 0,
    expired           bigint      not null default 0,
    cancelled         bigint      not null default 0,
    rescued           bigint      not null default 0,
    late              bigint      not null default 0,
    duration_ms_sum   bigint      not null default 0,
    pickup_ms_sum     bigint      not null default 0,
    durations         bigint[],
    pickups           bigint[],
    attempts          jsonb
);

create table outbox.operator_action (
    action_id         bigint      generated always as identity primary key,
    at                timestamptz not null default clock_timestamp(),
    actor             text        not null,
    action            text        not null,
    tenant_id         text        not null,
    id                bigint,
    detail            jsonb       not null default '{}'
);
create index operator_action_job on outbox.operator_action (id) where id is not null;
create index operator_action_series on outbox.operator_action (at) where action in ('retry', 'replay');

create table outbox.template (
    tenant_id         text        not null,
    code              text        not null check (char_length(code) between 1 and 128),
    channel           text        not null,
    locale            text        not null,
    version           int         not null,
    subject           text,
    body_text         text,
    body_html         text,
    schema            jsonb,
    keep_content      text        not null default 'hash' check (keep_content in ('none', 'hash', 'full')),
    -- What becomes of a delivery that went out and was never answered.
    on_ambiguous      text        not null default 'resend' check (on_ambiguous in ('resend', 'hold', 'fail')),
    created_at        timestamptz not null default clock_timestamp(),
    created_by        text,
    deleted_at        timestamptz,
    primary key (tenant_id, code, channel, locale, version)
);

create table outbox.recipient (
    tenant_id         text        not null,
    user_id           text        not null check (char_length(user_id) between 1 and 128),
    email             text,
    phone             text,
    telegram_chat_id  text,
    locale            text,
    timezone          text,
    attributes        jsonb       not null default '{}',
    opt_outs          text[]      not null default '{}',
    quiet_hours       jsonb,
    updated_at        timestamptz not null default clock_timestamp(),
    primary key (tenant_id, user_id)
);

-- Where a recipient is reached by push: an FCM token, or a Web Push subscription with its keys. One
-- belongs to whoever registered it last.
create table outbox.device (
    device_id         uuid        primary key default gen_random_uuid(),
    tenant_id         text        not null,
    user_id           text        not null check (char_length(user_id) between 1 and 128),
    channel           text        not null check (channel in ('push', 'browser')),
    address           text        not null check (octet_length(address) between 1 and 2048),
    p256dh            text,
    auth              text,
    created_at        timestamptz not null default clock_timestamp(),
    seen_at           timestamptz not null default clock_timestamp(),
    check ((channel = 'browser') = (p256dh is not null and auth is not null))
);
create unique index device_address on outbox.device (tenant_id, channel, address);
create index device_user on outbox.device (tenant_id, user_id, channel, seen_at);

create table outbox.suppression (
    tenant_id         text        not null,
    channel           text        not null,
    address           text        not null,
    code              text        not null,
    reason            text,
    created_at        timestamptz not null default clock_timestamp(),
    expires_at        timestamptz,
    primary key (tenant_id, channel, address)
);
-- Of recipients who were erased (erased:HASH): hashes are looked for only where there is such a row.
create index suppression_erased on outbox.suppression (tenant_id) where starts_with(address, 'erased:');

create table outbox.inbox_message (
    message_id        bigint      generated always as identity primary key,
    id                bigint      not null,
    series            smallint    not null default 1,
    tenant_id         text        not null,
    user_id           text        not null,
    subject           text,
    body              text        not null,
    data              jsonb       not null default '{}',
    created_at        timestamptz not null default clock_timestamp(),
    read_at           timestamptz,
    unique (id, series)
);
create index inbox_message_user on outbox.inbox_message (tenant_id, user_id, message_id);

-- What the `sink` provider and the demo's own receivers caught, instead of anybody's mailbox.
create table outbox.sink_message (
    message_id        bigint      generated always as identity primary key,
    tenant_id         text        not null,
    caught_by         text        not null check (caught_by in ('sink', 'smtp', 'http')),
    channel           text        not null,
    job_id            uuid,
    recipient         text,
    subject           text,
    body              text        not null,
    headers           jsonb       not null default '{}',
    created_at        timestamptz not null default clock_timestamp(),
    test              boolean     not null default (current_setting('outbox.mode', true) is not distinct from 'test')
);

-- A day whose job partition is detached already, and what belongs to its jobs goes away in batches:
-- those up to `pruned_to` are done.
create table outbox.retiring (
    day               date        primary key,
    detached_at       timestamptz not null default clock_timestamp(),
    pruned_to         bigint      not null default 0
);

-- When something that one dispatcher does for all was done last.
create table outbox.chore (
    chore             text        primary key,
    done_at           timestamptz not null default '-infinity'
);
insert into outbox.chore (chore) values ('analyze');

create table outbox.event (
    tenant_id         text        not null,
    event_id          uuid        not null,
    event_type        text        not null,
    user_id           text,
    data              jsonb       not null,
    occurred_at       timestamptz not null,
    accepted_at       timestamptz not null default clock_timestamp(),
    content_sha256    bytea       not null,
    jobs              uuid[]      not null default '{}',
    primary key (tenant_id, event_id)
);
create index event_accepted on outbox.event (accepted_at);

create table outbox.rule (
    rule_id           uuid        primary key default gen_random_uuid(),
    tenant_id         text        not null,
    name              text        not null,
    event_type        text        not null,
    condition         jsonb,
    template_code     text        not null,
    channels          text[]      not null check (cardinality(channels) between 1 and 10),
    delay_s           int         not null default 0 check (delay_s >= 0),
    expires_after_s   int         check (expires_after_s > 0),
    priority          text        not null default 'normal',
    enabled           boolean     not null default true,
    created_at        timestamptz not null default clock_timestamp(),
    updated_at        timestamptz not null default clock_timestamp()
);
create index rule_event on outbox.rule (tenant_id, event_type) where enabled;

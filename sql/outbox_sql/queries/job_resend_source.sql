-- What a resend copies: the job without its own identity and times. (A dedup_key would answer with the
-- very job that is to be sent again.)
select (j.job - array['job_id', 'idempotency_key', 'created_at', 'send_after', 'expires_at',
                      'dedup_key', 'dedup_window_s', 'dedup_policy']
        || jsonb_build_object('tenant_id', j.tenant_id))::text as job,
       coalesce(j.job ? 'erased', false) as erased,
       outbox.current_status(j.id) as status,
       j.test
from outbox.job as j
where j.id = %(id)s

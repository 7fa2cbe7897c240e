-- Accept a JSON list of jobs, in one statement and one round trip: take role and tenant, then
-- enqueue. `who` is a cross join that the function's argument depends on, so it always runs first.
-- tenant null: each job's own tenant_id (service-wide keys).
with who as materialized (
    select set_config('role', 'outbox_api', true) as role,
           set_config('outbox.tenant', %(sees)s, true) as sees,
           set_config('outbox.mode', %(mode)s, true) as mode,
           set_config('lock_timeout', %(lock_ms)s, true) as lock_timeout
)
select e.ord,
       e.job_id::text,
       e.status,
       e.result,
       e.job_ids::text[],
       case when e.faults is not null
            then (select json_agg(json_build_object('pointer', f.pointer, 'message', f.message))::text
                  from unnest(e.faults) as f)
       end as faults
from who
cross join lateral outbox.enqueue_many_v1(
    array(select j.value from jsonb_array_elements(%(jobs)s::jsonb) as j(value)),
    case when who.sees is not null then %(tenant)s::text end,
    on_conflict => %(on_conflict)s,
    on_fault => %(on_fault)s,
    fill_created => true,
    traceparents => %(traceparents)s::text[],
    resend_of => %(resend_of)s::uuid
) as e
order by e.ord

-- How a campaign went: its jobs by channel, template and status.
-- param campaign_id text 'bf_loyal_customers_2025' the meta.campaign_id of the jobs
-- param tenant text '*' whose campaign it is; * for every tenant
\if :{?campaign_id} \else \set campaign_id 'bf_loyal_customers_2025' \endif
\if :{?tenant} \else \set tenant '*' \endif
select n.tenant_id, n.channel, n.template_code, n.status, count(*) as jobs,
       round(100.0 * count(*) / sum(count(*)) over (), 1) as percent,
       count(distinct n.user_id) as users, sum(n.attempts) as attempts,
       min(n.accepted_at) as first_accepted_at, min(n.finished_at) as first_finished_at,
       max(n.finished_at) as last_finished_at
from outbox.notification as n
where n.campaign_id = :'campaign_id'::text and :'tenant'::text in ('*', n.tenant_id)
group by n.tenant_id, n.channel, n.template_code, n.status
order by n.tenant_id, n.channel, n.template_code, jobs desc, n.status;

-- What was sent, or tried, to one address: newest first. Found by a keyed hash, so it still answers
-- after the person was erased (without address and subject then). Jobs whose first attempt has not
-- ended yet have no row: ask user_history for them.
-- param address text 'nurzhan@example.com' a mail address, number, chat id or URL, as it was sent to
-- param tenant text '*' whose messages; * for every tenant
-- param days int '90' how far back, by the time of acceptance
-- param rows_max int '1000' at most so many rows
\if :{?address} \else \set address 'nurzhan@example.com' \endif
\if :{?tenant} \else \set tenant '*' \endif
\if :{?days} \else \set days '90' \endif
\if :{?rows_max} \else \set rows_max '1000' \endif
select d.finished_at, d.tenant_id, d.job_id, d.user_id, d.channel, d.template_code, d.template_version, d.campaign_id,
       d.status, d.late, d.series, d.attempt, d.provider, d.provider_message_id, d.recipient, d.subject,
       d.content_sha256, d.error_code, d.error_message
from outbox.notification_delivery as d
where d.recipient_hash = outbox.address_hash(:'address'::text)
  and :'tenant'::text in ('*', d.tenant_id)
  and d.delivery_id >= outbox.id_floor(now() - make_interval(days => :'days'::int))
order by d.delivery_id desc, d.series desc, d.lease_no desc, d.late
limit :'rows_max'::int;

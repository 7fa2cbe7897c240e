"""Events: one transaction stores the event and the jobs that the rules make of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID, uuid5

import msgspec
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import Fault
from outbox.store import endpoints, events, jobs
from outbox.store.events import EventParts, KnownEvent, RuleRow
from outbox.store.jobs import InvalidBatch
from outbox.store.pool import Connection
from outbox_api import conditions, samples
from outbox_api.answers import JsonObject, answer, left_out, written
from outbox_api.identity import idempotent_id
from outbox_api.operations import Answer, Body, operation
from outbox_api.paging import Moment
from outbox_api.problems import Problem, invalid
from outbox_api.requests import ApiRequest, idempotency_key, read_query, read_struct
from outbox_api.routes.jobs import traceparent_of
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantQuery, one_tenant

ENDPOINTS_MAX = 1_000
"""So many of a tenant's endpoints can listen to one event."""


class EventBody(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. `occurred_at` left out is now."""

    event_type: Annotated[str, Meta(min_length=1, max_length=128)]
    user_id: Annotated[str, Meta(min_length=1, max_length=128)]
    event_id: UUID | None = None
    data: JsonObject = msgspec.field(default_factory=left_out)
    occurred_at: Moment | None = None


class EventAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs that an event has made."""

    event_id: UUID
    duplicate: bool
    job_ids: list[str]


_BODY = {
    "event_id": samples.EVENT_ID,
    "event_type": "user_registered",
    "user_id": samples.USER_ID,
    "data": {"first_name": "Нуржан", "login_url": "https://cinema.kz/login"},
    "occurred_at": samples.AT,
}
_ANSWER = {"event_id": samples.EVENT_ID, "duplicate": False, "job_ids": [samples.JOB_ID]}


@operation(
    "POST",
    "/events",
    summary="Hand in an event",
    tag="events",
    needs="jobs:write",
    query=TenantQuery,
    headers=("Idempotency-Key", "traceparent"),
    body=Body(kind=EventBody, examples={"registered": _BODY}),
    answers={
        202: Answer(EventAnswer, "Stored, with the jobs that the rules made of it.", _ANSWER),
        200: Answer(EventAnswer, "Known already; nothing new was made.", _ANSWER),
    },
    problems=(400, 409, 413, 415, 422),
)
async def post_event(request: ApiRequest) -> ASGIResponse:
    """Store an event once, and the jobs of each rule that applies, in the same transaction."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    runtime = runtime_of(request)
    key = idempotency_key(request)
    body = await read_struct(request, EventBody, bytes_max=runtime.config.job_bytes_max)
    event = _event(body, tenant, key, test=request.auth.test)
    async with runtime.database.transaction(request.auth.sees) as connection:
        stored = await events.put_event(connection, event, tenant=tenant)
        if isinstance(stored, KnownEvent):
            if not stored.same:
                said = "was accepted before with other content"
                raise Problem(
                    409,
                    f"The event_id {event.event_id} {said}.",
                    errors=[Fault("/event_id", said)],
                )
            known = EventAnswer(event_id=event.event_id, duplicate=True, job_ids=stored.jobs)
            return answer(known)
        job_ids = await _make_jobs(
            connection, event, tenant, stored, traceparent=traceparent_of(request)
        )
        if job_ids:
            await events.note_jobs(connection, event.event_id, job_ids, tenant=tenant)
    if job_ids:
        runtime.bell.ring()
    made = EventAnswer(event_id=event.event_id, duplicate=False, job_ids=job_ids)
    return answer(made, status=202)


def _event(body: EventBody, tenant: str, key: str | None, *, test: bool) -> EventParts:
    data = written(body.data) or "{}"
    if not data.lstrip().startswith("{"):
        raise invalid([Fault("/data", "must be an object")])
    event_id = body.event_id
    if event_id is None:
        if key is None:
            raise invalid([Fault("/event_id", "is required, or an Idempotency-Key")])
        event_id = idempotent_id(tenant, f"event:{key}")
    # The content is what the producer sent: a time that we filled in is no part of it.
    content: dict[str, object] = {
        "event_type": body.event_type,
        "user_id": body.user_id,
        "data": msgspec.Raw(data.encode()),
        "occurred_at": body.occurred_at.astimezone(UTC) if body.occurred_at else None,
    }
    if test:
        content["test"] = True  # else a test key's event would be taken for one in earnest
    return EventParts(
        event_id=event_id,
        event_type=body.event_type,
        user_id=body.user_id,
        data=data,
        occurred_at=body.occurred_at or datetime.now(UTC),
        content=msgspec.json.encode(content).decode(),
    )


async def _make_jobs(
    connection: Connection,
    event: EventParts,
    tenant: str,
    accepted_at: datetime,
    *,
    traceparent: str | None,
) -> list[str]:
    """Enqueue what the rules make of an event; a fault in one keeps the event out as well."""
    data = conditions.read_data(event.data)
    rules = [
        rule
        for rule in await events.list_rules(connection, tenant=tenant, event_type=event.event_type)
        if rule.enabled
        and (
            rule.condition is None or conditions.holds(conditions.read_data(rule.condition), data)
        )
    ]
    made = [(rule, channel) for rule in rules for channel in rule.channels]
    listening = await endpoints.list_endpoints(
        connection, tenant=tenant, event_type=event.event_type, limit=ENDPOINTS_MAX
    )
    if not made and not listening:
        return []
    texts = [_job(event, rule, channel, accepted_at) for rule, channel in made]
    texts += [_webhook(event, endpoint.endpoint_id) for endpoint in listening]
    try:
        results = await jobs.enqueue(
            connection,
            f"[{','.join(texts)}]",
            tenant=tenant,
            skip_bad=False,
            traceparents=[traceparent] * len(texts),
        )
    except InvalidBatch as error:
        raise invalid(
            [
                Fault(
                    f"/rules/{made[fault.index][0].rule_id}{fault.pointer}",
                    f"{fault.message} (of the job for {made[fault.index][1]} of this rule)",
                )
                for fault in error.faults
                if fault.index < len(made)
            ]
        ) from error
    return [stored.job_id for stored in results if stored.job_id is not None]


def _webhook(event: EventParts, endpoint_id: UUID) -> str:
    job = {
        "job_id": uuid5(event.event_id, str(endpoint_id)),
        "channel": "webhook",
        "endpoint": endpoint_id,
        "data": msgspec.Raw(event.data.encode()),
        "meta": {"event_type": event.event_type, "event_id": event.event_id},
        "created_at": event.occurred_at,
    }
    return msgspec.json.encode(job).decode()


def _job(event: EventParts, rule: RuleRow, channel: str, accepted_at: datetime) -> str:
    job: dict[str, object] = {
        "job_id": uuid5(event.event_id, f"{rule.rule_id}{channel}"),
        "user_id": event.user_id,
        "channel": channel,
        "template_code": rule.template_code,
        "data": msgspec.Raw(event.data.encode()),
        "meta": {
            "event_type": event.event_type,
            "event_id": event.event_id,
            "campaign_id": None,
            "priority": rule.priority,
        },
        "created_at": event.occurred_at,
    }
    if rule.delay_s:
        job["send_after"] = accepted_at + timedelta(seconds=rule.delay_s)
    if rule.expires_after_s is not None:
        job["expires_at"] = accepted_at + timedelta(seconds=rule.expires_after_s)
    return msgspec.json.encode(job).decode()


ROUTES = [post_event]

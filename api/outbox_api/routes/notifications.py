"""The simple send (contracts.md 4): one message, four statuses."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import Fault
from outbox.message import Priority
from outbox.store import jobs
from outbox.store.jobs import FullJobRow, HistoryRow
from outbox_api import samples
from outbox_api.answers import JsonObject, answer, left_out, written
from outbox_api.backpressure import require_room
from outbox_api.identity import new_id
from outbox_api.operations import PREFIX, Answer, Body, operation
from outbox_api.problems import invalid, not_found
from outbox_api.requests import ApiRequest, idempotency_key, read_query, read_struct
from outbox_api.routes.job_views import locate_job
from outbox_api.routes.jobs import conflict, refusal, traceparent_of
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import DEFAULT_TENANT, TenantQuery

SimpleStatus = Literal["pending", "processing", "sent", "failed"]
Channel = Literal[
    "email", "push", "ws", "sms", "telegram", "inbox", "database", "browser", "webhook"
]

_SIMPLE: dict[str, SimpleStatus] = {
    "scheduled": "pending",
    "pending": "pending",
    "retrying": "pending",
    "processing": "processing",
    "sent": "sent",
    "failed": "failed",
    "expired": "failed",
    "cancelled": "failed",
}
_ENDS = {"expired": "expired before it was sent", "cancelled": "cancelled before it was sent"}
_POINTERS = {
    "/channel": "/type",
    "/to": "/recipient",
    "/user_id": "/recipient",
    "/data": "/variables",
    "/template_code": "/template_id",
    "/meta/priority": "/priority",
}


class SimpleSend(msgspec.Struct, frozen=True, kw_only=True):
    """One message. `content` is a Jinja2 text or HTML; `template_id` names a stored template."""

    type: Channel
    recipient: Annotated[str, Meta(min_length=1, max_length=2_048)]
    content: Annotated[str, Meta(min_length=1)] | None = None
    variables: JsonObject = msgspec.field(default_factory=left_out)
    subject: Annotated[str, Meta(min_length=1, max_length=998)] | None = None
    template_id: Annotated[str, Meta(min_length=1, max_length=128)] | None = None
    send_after: str | None = None
    expires_at: str | None = None
    priority: Priority | None = None


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """The message's id."""

    id: UUID
    status: SimpleStatus


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change of state."""

    status: SimpleStatus
    at: datetime
    attempt: int
    error: str | None


class SimpleView(msgspec.Struct, frozen=True, kw_only=True):
    """A message and what became of it."""

    id: UUID
    type: str | None
    recipient: str | None
    status: SimpleStatus
    attempts: int
    error: str | None
    created_at: datetime
    updated_at: datetime
    history: list[Change]


@operation(
    "POST",
    "/notifications/send",
    summary="Send one message",
    tag="notifications",
    needs="jobs:write",
    headers=("Idempotency-Key", "traceparent"),
    body=Body(
        kind=SimpleSend,
        examples={
            "greeting": {
                "type": "email",
                "recipient": "user@example.com",
                "content": "Hello {{ name }}!",
                "variables": {"name": "Ann"},
            }
        },
    ),
    answers={
        202: Answer(Sent, "Stored; it will be sent.", {"id": samples.JOB_ID, "status": "pending"}),
        200: Answer(Sent, "Known already, by its Idempotency-Key."),
    },
    problems=(400, 409, 413, 415, 422, 429),
)
async def send_notification(request: ApiRequest) -> ASGIResponse:
    """Make a job of a message. For `inbox`, the recipient is a user's id."""
    runtime = runtime_of(request)
    key = idempotency_key(request)
    wanted = await read_struct(request, SimpleSend, bytes_max=runtime.config.job_bytes_max)
    require_room(runtime, request.auth, (wanted.type,))
    tenant = request.auth.tenant or DEFAULT_TENANT
    job_id = new_id(tenant, key)
    stored = await runtime.intake.submit(
        tenant,
        _job(wanted, job_id),
        traceparent_of(request),
        fresh=key is None,
        test=request.auth.test,
    )
    if stored.result == "invalid":
        problem = refusal(stored)
        raise invalid(
            [Fault(_POINTERS.get(f.pointer, f.pointer), f.message) for f in problem.errors],
            status=problem.status,
        )
    if stored.result == "conflict":
        raise conflict("/header/idempotency-key", stored.job_id)
    return answer(
        Sent(id=job_id, status=_SIMPLE[stored.status or "pending"]),
        status=202 if stored.result == "new" else 200,
        headers={"location": f"{PREFIX}/notifications/{job_id}/status"},
    )


def _job(wanted: SimpleSend, job_id: UUID) -> str:
    variables = written(wanted.variables) or "{}"
    job: dict[str, object] = {
        "job_id": job_id,
        "channel": wanted.type,
        "data": msgspec.Raw(variables.encode()),
        "meta": {"priority": wanted.priority} if wanted.priority is not None else {},
    }
    job["user_id" if wanted.type in ("inbox", "database", "ws") else "to"] = wanted.recipient
    for name, value in (
        ("content", wanted.content),
        ("subject", wanted.subject),
        ("template_code", wanted.template_id),
        ("send_after", wanted.send_after),
        ("expires_at", wanted.expires_at),
    ):
        if value is not None:
            job[name] = value
    return msgspec.json.encode(job).decode()


@operation(
    "GET",
    "/notifications/{notification_id:uuid}/status",
    summary="Show what became of a message",
    tag="notifications",
    needs="jobs:read",
    query=TenantQuery,
    answers={
        200: Answer(
            SimpleView,
            "Scheduled and retrying read pending; expired and cancelled read failed.",
            {
                "id": samples.JOB_ID,
                "type": "email",
                "recipient": "user@example.com",
                "status": "sent",
                "attempts": 1,
                "error": None,
                "created_at": samples.AT,
                "updated_at": "2025-11-14T12:35:10.731Z",
                "history": [{"status": "pending", "at": samples.AT, "attempt": 0, "error": None}],
            },
        )
    },
    problems=(404, 409),
    path_examples={"notification_id": samples.JOB_ID},
)
async def notification_status(
    request: ApiRequest, notification_id: FromPath[UUID]
) -> ASGIResponse:
    """Show a message's status and every change of it."""
    tenant_id = read_query(request, TenantQuery).tenant_id
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        found = await locate_job(connection, request, notification_id, tenant_id)
        row = await jobs.show(connection, found.id)
        history = await jobs.history(connection, found.id)
    if row is None:
        raise not_found("notification")
    return answer(_view(row, history))


def _view(row: FullJobRow, history: list[HistoryRow]) -> SimpleView:
    whole = msgspec.json.decode(row.job, type=dict[str, msgspec.Raw])
    recipient = msgspec.json.decode(whole["to"], type=str) if "to" in whole else row.user_id
    error = row.last_error if row.status in ("failed", "retrying") else _ENDS.get(row.status)
    return SimpleView(
        id=row.job_id,
        type=row.channel or row.queue,
        recipient=recipient,
        status=_SIMPLE[row.status],
        attempts=row.attempts or 0,
        error=error,
        created_at=row.created_at,
        updated_at=max((change.at for change in history), default=row.accepted_at),
        history=[
            Change(
                status=_SIMPLE[change.status],
                at=change.at,
                attempt=change.attempt,
                error=change.error or _ENDS.get(change.status),
            )
            for change in history
        ],
    )


ROUTES = [send_notification, notification_status]

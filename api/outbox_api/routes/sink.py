"""What was caught instead of sent."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.store import sink
from outbox.store.sink import SinkFilter, SinkRow
from outbox_api import samples
from outbox_api.answers import JsonObject, Page, answer, no_content, write_cursor
from outbox_api.operations import Answer, operation
from outbox_api.paging import Limit
from outbox_api.requests import ApiRequest, read_query
from outbox_api.routes.job_views import cursor_number
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantId, TenantQuery, tenant_filter

Text = Annotated[str, Meta(max_length=2_048)]


class SinkQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which caught messages."""

    channel: Text | None = None
    recipient: Text | None = None
    job_id: UUID | None = None
    tenant_id: TenantId | None = None
    limit: Limit = 50
    cursor: Text | None = None


class SinkView(msgspec.Struct, frozen=True, kw_only=True):
    """A caught message. `caught_by`: the provider `sink`, or a demo's SMTP or HTTP receiver."""

    id: int
    tenant_id: str
    caught_by: str
    channel: str
    job_id: UUID | None
    recipient: str | None
    subject: str | None
    body: str
    headers: JsonObject
    created_at: datetime


_MESSAGE = {
    "id": 3,
    "tenant_id": "default",
    "caught_by": "sink",
    "channel": "email",
    "job_id": samples.JOB_ID,
    "recipient": "user@example.com",
    "subject": "Добро пожаловать",
    "body": "Здравствуйте, Нуржан!",
    "headers": {"content-type": "text/plain"},
    "created_at": samples.AT,
}


@operation(
    "GET",
    "/sink",
    summary="List what was caught instead of sent",
    tag="sink",
    needs="jobs:read",
    query=SinkQuery,
    answers={
        200: Answer(
            Page[SinkView], "A page, newest first.", {"items": [_MESSAGE], "next_cursor": None}
        )
    },
    problems=(400,),
)
async def list_sink(request: ApiRequest) -> ASGIResponse:
    """List the messages of sandbox, demo and test providers."""
    query = read_query(request, SinkQuery)
    wanted = SinkFilter(
        tenant_id=tenant_filter(request.auth, query.tenant_id),
        channel="inbox" if query.channel == "database" else query.channel,
        recipient=query.recipient,
        job_id=query.job_id,
    )
    before = cursor_number(query.cursor)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await sink.sink(connection, wanted, before=before, limit=query.limit + 1)
    shown = rows[: query.limit]
    more = write_cursor(shown[-1].message_id) if len(rows) > query.limit else None
    return answer(Page(items=[_view(row) for row in shown], next_cursor=more))


@operation(
    "DELETE",
    "/sink",
    summary="Empty the sink",
    tag="sink",
    needs="admin",
    query=TenantQuery,
    answers={204: Answer(None, "Empty.")},
)
async def clear_sink(request: ApiRequest) -> ASGIResponse:
    """Delete what was caught."""
    tenant = tenant_filter(request.auth, read_query(request, TenantQuery).tenant_id)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        await sink.clear_sink(connection, tenant=tenant, actor=request.auth.name)
    return no_content()


def _view(row: SinkRow) -> SinkView:
    return SinkView(
        id=row.message_id,
        tenant_id=row.tenant_id,
        caught_by=row.caught_by,
        channel=row.channel,
        job_id=row.job_id,
        recipient=row.recipient,
        subject=row.subject,
        body=row.body,
        headers=msgspec.Raw(row.headers.encode()),
        created_at=row.created_at,
    )


ROUTES = [list_sink, clear_sink]

"""What was caught instead of sent, and addresses that get nothing more."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.store import catalog
from outbox.store.catalog import SinkFilter, SinkRow, Suppression
from outbox_api import samples
from outbox_api.answers import JsonObject, Page, answer, no_content, write_cursor
from outbox_api.operations import Answer, operation
from outbox_api.paging import Limit
from outbox_api.problems import not_found
from outbox_api.requests import ApiRequest, read_query
from outbox_api.routes.job_views import cursor_number
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantId, TenantQuery, one_tenant, tenant_filter
from outbox_api.text_cursors import read_text_cursor, write_text_cursor

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


class SuppressionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which suppressions."""

    channel: Text | None = None
    address: Text | None = None
    tenant_id: TenantId | None = None
    limit: Limit = 100
    cursor: Annotated[str, Meta(max_length=4_096)] | None = None


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
_SUPPRESSION = {
    "tenant_id": "default",
    "channel": "email",
    "address": "gone@example.com",
    "code": "smtp.5.1.1",
    "reason": "550 5.1.1 no such user",
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
        rows = await catalog.sink(connection, wanted, before=before, limit=query.limit + 1)
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
        await catalog.clear_sink(connection, tenant=tenant)
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


@operation(
    "GET",
    "/suppressions",
    summary="List addresses that get nothing more",
    tag="administration",
    needs="jobs:read",
    query=SuppressionQuery,
    answers={
        200: Answer(
            Page[Suppression],
            "A page, by tenant, channel and address.",
            {"items": [_SUPPRESSION], "next_cursor": None},
        )
    },
    problems=(400,),
)
async def list_suppressions(request: ApiRequest) -> ASGIResponse:
    """List what bounces and complaints have suppressed."""
    query = read_query(request, SuppressionQuery)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await catalog.list_suppressions(
            connection,
            tenant=tenant_filter(request.auth, query.tenant_id),
            channel=query.channel,
            address=query.address,
            after=read_text_cursor(query.cursor),
            limit=query.limit + 1,
        )
    shown = rows[: query.limit]
    more = None
    if len(rows) > query.limit:
        last = shown[-1]
        more = write_text_cursor(last.tenant_id, last.channel, last.address)
    return answer(Page(items=shown, next_cursor=more))


@operation(
    "DELETE",
    "/suppressions/{channel:str}/{address:str}",
    summary="Let an address receive again",
    tag="administration",
    needs="admin",
    query=TenantQuery,
    answers={204: Answer(None, "No longer suppressed.")},
    problems=(404,),
    path_examples={"channel": "email", "address": "gone@example.com"},
)
async def delete_suppression(
    request: ApiRequest, channel: FromPath[str], address: FromPath[str]
) -> ASGIResponse:
    """Take an address off the list; addresses are kept in lower case."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        gone = await catalog.delete_suppression(
            connection, tenant=tenant, channel=channel, address=address.lower()
        )
        if not gone:
            raise not_found("suppression")
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="suppression.delete",
            tenant=tenant,
            detail={"channel": channel},
        )
    return no_content()


ROUTES = [list_sink, clear_sink, list_suppressions, delete_suppression]

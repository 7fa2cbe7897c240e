"""Addresses that get nothing more: by bounces and complaints, or because somebody said so."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.channels.addresses import AddressRefused, parse_mailbox
from outbox.channels.registry import CONTRACT_CHANNELS
from outbox.errors import Fault
from outbox.store import catalog, recipients
from outbox.store.recipients import Suppression
from outbox_api import samples
from outbox_api.answers import Page, answer, no_content
from outbox_api.operations import Answer, Body, operation
from outbox_api.paging import Limit, Moment
from outbox_api.problems import invalid, not_found
from outbox_api.requests import ApiRequest, read_query, read_struct
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantId, TenantQuery, one_tenant, tenant_filter
from outbox_api.text_cursors import read_text_cursor, write_text_cursor

ADDRESS_CHARS_MAX = 2_048
BY_HAND = "manual"
"""The code of what was suppressed through this door."""

Text = Annotated[str, Meta(max_length=ADDRESS_CHARS_MAX)]


class SuppressionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which suppressions."""

    channel: Text | None = None
    address: Text | None = None
    tenant_id: TenantId | None = None
    limit: Limit = 100
    cursor: Annotated[str, Meta(max_length=4_096)] | None = None


class SuppressionBody(msgspec.Struct, frozen=True, kw_only=True):
    """Why, and until when; for ever where `expires_at` is left out."""

    reason: Annotated[str, Meta(max_length=500)] | None = None
    expires_at: Moment | None = None


_SUPPRESSION = {
    "tenant_id": "default",
    "channel": "email",
    "address": "gone@example.com",
    "code": "smtp.5.1.1",
    "reason": "550 5.1.1 no such user",
    "created_at": samples.AT,
    "expires_at": None,
}
_PATH = {"channel": "email", "address": "gone@example.com"}


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
        rows = await recipients.list_suppressions(
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
    "PUT",
    "/suppressions/{channel:str}/{address:str}",
    summary="Let an address receive nothing more",
    tag="administration",
    needs="admin",
    query=TenantQuery,
    body=Body(
        kind=SuppressionBody,
        examples={"a month": {"reason": "asked by phone", "expires_at": samples.AT}},
    ),
    answers={200: Answer(Suppression, "As it is stored.", _SUPPRESSION | {"code": BY_HAND})},
    problems=(400, 413, 415, 422),
    path_examples=_PATH,
)
async def put_suppression(
    request: ApiRequest, channel: FromPath[str], address: FromPath[str]
) -> ASGIResponse:
    """Suppress an address on a channel, in place of what was known of it."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    body = await read_struct(request, SuppressionBody)
    faults = []
    if channel not in CONTRACT_CHANNELS:
        faults.append(Fault("/path/channel", "is no channel"))
    if not 1 <= len(address) <= ADDRESS_CHARS_MAX or not address.isprintable():
        faults.append(Fault("/path/address", "must be an address"))
    elif channel == "email" and not _is_mailbox(address):
        faults.append(Fault("/path/address", "must be a mail address"))
    if body.expires_at is not None and body.expires_at <= datetime.now(UTC):
        faults.append(Fault("/expires_at", "must lie ahead"))
    if faults:
        raise invalid(faults)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        stored = await recipients.put_suppression(
            connection,
            tenant=tenant,
            channel=channel,
            address=address.lower(),
            code=BY_HAND,
            reason=body.reason,
            expires_at=body.expires_at,
        )
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="suppression.put",
            tenant=tenant,
            detail={"channel": channel},
        )
    return answer(stored)


def _is_mailbox(address: str) -> bool:
    try:
        parse_mailbox(address)
    except AddressRefused:
        return False
    return True


@operation(
    "DELETE",
    "/suppressions/{channel:str}/{address:str}",
    summary="Let an address receive again",
    tag="administration",
    needs="admin",
    query=TenantQuery,
    answers={204: Answer(None, "No longer suppressed.")},
    problems=(404,),
    path_examples=_PATH,
)
async def delete_suppression(
    request: ApiRequest, channel: FromPath[str], address: FromPath[str]
) -> ASGIResponse:
    """Take an address off the list; addresses are kept in lower case."""
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        gone = await recipients.delete_suppression(
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


ROUTES = [list_suppressions, put_suppression, delete_suppression]

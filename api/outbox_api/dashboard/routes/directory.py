"""Who is there: providers, recipients, and what operators did."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.store import catalog, limits, operate, providers, recipients
from outbox_api.answers import write_cursor
from outbox_api.dashboard.rendering import page, page_route, query_of, read_form
from outbox_api.problems import not_found
from outbox_api.requests import ApiRequest
from outbox_api.routes.job_views import cursor_number
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import one_tenant, tenant_filter

SHOWN = 50
INBOX_SHOWN = 20

Text = Annotated[str, Meta(max_length=255)]


class LogQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who did what."""

    actor: Text | None = None
    action: Text | None = None
    cursor: Text | None = None


class PeopleQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to look for: the beginning of an id, or an address."""

    q: Text | None = None
    tenant_id: Text | None = None


class OneQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whose recipient."""

    tenant_id: Text | None = None


@page_route("GET", "/operator-log", summary="Show who did what", needs="admin")
async def operator_log(request: ApiRequest) -> ASGIResponse:
    """Show what operators did, newest first."""
    query = query_of(request, LogQuery)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await operate.actions(
            connection,
            tenant=request.auth.tenant,
            actor=query.actor,
            action=query.action,
            before=cursor_number(query.cursor),
            limit=SHOWN + 1,
        )
    shown = rows[:SHOWN]
    older = None
    if len(rows) > SHOWN:
        kept = {name: text for name, text in request.query_params.items() if text}
        older = f"?{urlencode(kept | {'cursor': write_cursor(shown[-1].action_id)})}"
    listed = [(row, _detail(row.detail)) for row in shown]
    return await page(request, "log", here="log", rows=listed, query=query, older=older)


def _detail(text: str) -> list[tuple[str, str]]:
    found = msgspec.json.decode(text, type=dict[str, object])
    return [
        (name, each if isinstance(each, str) else msgspec.json.encode(each).decode())
        for name, each in found.items()
        if each is not None
    ]


@page_route("GET", "/providers", summary="Show providers", needs="admin")
async def list_providers(request: ApiRequest) -> ASGIResponse:
    """Show who delivers, and which lanes are held because somebody does not."""
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await providers.list_providers(connection, tenant=request.auth.tenant)
        held = await operate.held_lanes(connection, tenant=request.auth.tenant)
        attempts = await operate.provider_attempts(connection, tenant=request.auth.tenant)
        destinations = await limits.list_destinations(connection)
    return await page(
        request,
        "providers",
        here="providers",
        rows=rows,
        held=held,
        attempts=attempts,
        destinations=destinations,
    )


@page_route("GET", "/recipients", summary="Show recipients", needs="jobs:read")
async def list_recipients(request: ApiRequest) -> ASGIResponse:
    """Show the directory, its addresses masked."""
    query = query_of(request, PeopleQuery)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await recipients.list_recipients(
            connection,
            tenant=tenant_filter(request.auth, query.tenant_id),
            wanted=query.q,
            after=("", ""),
            limit=SHOWN,
        )
    return await page(request, "recipients", here="recipients", rows=rows, query=query)


@page_route("GET", "/recipients/{user_id:str}", summary="Show a recipient", needs="jobs:read")
async def show_recipient(request: ApiRequest, user_id: FromPath[str]) -> ASGIResponse:
    """Show one recipient: what is known, opted out of, and in the inbox."""
    tenant = one_tenant(request.auth, query_of(request, OneQuery).tenant_id)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        row = await recipients.get_recipient(connection, tenant, user_id)
        if row is None:
            raise not_found("recipient")
        inbox, unread = await recipients.inbox(
            connection, tenant, user_id, unread=False, before=None, limit=INBOX_SHOWN
        )
    return await page(request, "recipient", here="recipients", r=row, inbox=inbox, unread=unread)


@page_route(
    "POST", "/recipients/{user_id:str}/reveal", summary="Show addresses", needs="jobs:write"
)
async def reveal_recipient(request: ApiRequest, user_id: FromPath[str]) -> ASGIResponse:
    """Show a recipient's addresses; that they were asked for is written down."""
    await read_form(request)
    tenant = one_tenant(request.auth, query_of(request, OneQuery).tenant_id)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        row = await recipients.get_recipient(connection, tenant, user_id)
        if row is None:
            raise not_found("recipient")
        await catalog.note_action(
            connection,
            actor=request.auth.name,
            action="recipient.reveal",
            tenant=tenant,
            detail={"user_id": user_id},
        )
    return await page(request, "part_addresses", r=row)


ROUTES = [operator_log, list_providers, list_recipients, show_recipient, reveal_recipient]

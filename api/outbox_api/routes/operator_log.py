"""The operator log: who did what, when and why, and what was refused."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.store import operate
from outbox_api import samples
from outbox_api.answers import JsonObject, Page, answer, write_cursor
from outbox_api.operations import Answer, operation
from outbox_api.paging import Limit
from outbox_api.requests import ApiRequest, read_query
from outbox_api.routes.job_views import cursor_number
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantId, tenant_filter

Text = Annotated[str, Meta(min_length=1, max_length=255)]


class LogQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which actions."""

    actor: Text | None = None
    action: Text | None = None
    refused: bool | None = None
    tenant_id: TenantId | None = None
    limit: Limit = 50
    cursor: Text | None = None


class ActionView(msgspec.Struct, frozen=True, kw_only=True):
    """An action. `detail` has `refused` with a status where it was not done, and the `reason`."""

    id: int
    at: datetime
    actor: str
    action: str
    tenant_id: str
    job_id: UUID | None
    detail: JsonObject


_ACTION = {
    "id": 17,
    "at": samples.AT,
    "actor": "ann",
    "action": "pause",
    "tenant_id": "*",
    "job_id": None,
    "detail": {"queue": "email"},
}


@operation(
    "GET",
    "/operator-log",
    summary="List who did what, newest first",
    tag="administration",
    needs="admin",
    query=LogQuery,
    answers={200: Answer(Page[ActionView], "A page.", {"items": [_ACTION], "next_cursor": None})},
    problems=(400,),
)
async def list_actions(request: ApiRequest) -> ASGIResponse:
    """List what was done over HTTP, from the command line and by Outbox itself, and refusals.

    Whoever acts may say why in the header `Outbox-Reason`.
    """
    query = read_query(request, LogQuery)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await operate.actions(
            connection,
            tenant=tenant_filter(request.auth, query.tenant_id),
            actor=query.actor,
            action=query.action,
            refused=query.refused,
            before=cursor_number(query.cursor),
            limit=query.limit + 1,
        )
    shown = rows[: query.limit]
    more = write_cursor(shown[-1].action_id) if len(rows) > query.limit else None
    items = [
        ActionView(
            id=row.action_id,
            at=row.at,
            actor=row.actor,
            action=row.action,
            tenant_id=row.tenant_id,
            job_id=row.job_id,
            detail=msgspec.Raw(row.detail.encode()),
        )
        for row in shown
    ]
    return answer(Page(items=items, next_cursor=more))


ROUTES = [list_actions]

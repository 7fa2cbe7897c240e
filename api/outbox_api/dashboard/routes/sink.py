"""What was caught instead of sent.

A caught mail's HTML is anybody's: it is shown in a sandboxed frame, from a response whose own
policy allows neither scripts nor loads.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.channels.registry import CONTRACT_CHANNELS
from outbox.store import sink
from outbox.store.sink import SinkFilter, SinkRow
from outbox_api.answers import write_cursor
from outbox_api.dashboard.humane import MASK, title_of
from outbox_api.dashboard.live import live_part
from outbox_api.dashboard.rendering import (
    framed,
    page,
    page_route,
    query_of,
    read_form,
    render,
    told,
)
from outbox_api.problems import not_found
from outbox_api.requests import ApiRequest
from outbox_api.routes.job_views import cursor_number
from outbox_api.runtime import runtime_of

EVERY_S = 1.5
SHOWN = 50
MESSAGE_ID_MAX = 2**63 - 1

_RECEIVERS = {"sink": "the provider sink", "smtp": "a mail server", "http": "a web server"}


class SinkQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which caught messages."""

    channel: Annotated[str, Meta(max_length=32)] | None = None
    cursor: Annotated[str, Meta(max_length=64)] | None = None


async def _rows(request: ApiRequest, query: SinkQuery) -> list[SinkRow]:
    wanted = SinkFilter(tenant_id=request.auth.tenant, channel=query.channel)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        return await sink.sink(
            connection, wanted, before=cursor_number(query.cursor), limit=SHOWN + 1
        )


@page_route("GET", "/sink", summary="Show what was caught", needs="jobs:read")
async def list_sink(request: ApiRequest) -> ASGIResponse:
    """Show caught messages, newest first."""
    query = query_of(request, SinkQuery)
    rows = await _rows(request, query)
    shown = rows[:SHOWN]
    older = None
    if len(rows) > SHOWN:
        kept = {"channel": query.channel} if query.channel else {}
        older = f"?{urlencode(kept | {'cursor': write_cursor(shown[-1].message_id)})}"
    return await page(
        request,
        "sink",
        here="sink",
        messages=shown,
        channels=CONTRACT_CHANNELS,
        query=query,
        older=older,
    )


@page_route("GET", "/live/sink", summary="Follow what is caught", needs="jobs:read")
async def follow(request: ApiRequest) -> ASGIResponse:
    """Follow what is caught."""
    query = query_of(request, SinkQuery)

    async def part() -> str:
        rows = await _rows(request, query)
        return await render(request, "part_messages", messages=rows[:SHOWN])

    return live_part(request, "sink", part, every_s=EVERY_S)


@page_route("POST", "/sink/clear", summary="Empty the sink", needs="admin")
async def clear(request: ApiRequest) -> ASGIResponse:
    """Delete what was caught."""
    await read_form(request)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        gone = await sink.clear_sink(
            connection, tenant=request.auth.tenant, actor=request.auth.name
        )
    return told(f"{gone} caught messages were deleted.")


@page_route("GET", "/sink/{message_id:int}", summary="Show a caught message", needs="jobs:read")
async def show_message(request: ApiRequest, message_id: FromPath[int]) -> ASGIResponse:
    """Show one message: how it looks, what it says, its headers."""
    row = await _message(request, message_id)
    headers = _headers(row)
    html = _html(row, headers)
    return await page(
        request,
        "message",
        here="sink",
        m=row,
        title=title_of(row) if request.auth.may("jobs:write") else MASK,
        caught_by=_RECEIVERS[row.caught_by],
        has_html=html is not None,
        text=_readable(row.body) if html != row.body else None,
        headers=[(name, value) for name, value in headers.items() if name != "html"],
    )


@page_route(
    "GET", "/sink/{message_id:int}/html", summary="Show a message's HTML", needs="jobs:write"
)
async def message_html(request: ApiRequest, message_id: FromPath[int]) -> ASGIResponse:
    """Show the HTML part, for the sandboxed frame."""
    row = await _message(request, message_id)
    html = _html(row, _headers(row))
    if html is None:
        raise not_found("HTML part")
    return framed(html)


async def _message(request: ApiRequest, message_id: int) -> SinkRow:
    if not 0 < message_id <= MESSAGE_ID_MAX:
        raise not_found("message")
    wanted = SinkFilter(tenant_id=request.auth.tenant, message_id=message_id)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await sink.sink(connection, wanted, before=None, limit=1)
    if not rows:
        raise not_found("message")
    return rows[0]


def _readable(body: str) -> str:
    """Return a body for eyes: JSON with a line for each value."""
    if not body.startswith(("{", "[")):
        return body
    try:
        return msgspec.json.format(body, indent=2)
    except msgspec.DecodeError:
        return body


def _headers(row: SinkRow) -> dict[str, str]:
    found = msgspec.json.decode(row.headers, type=dict[str, object])
    return {
        name: value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in found.items()
    }


def _html(row: SinkRow, headers: dict[str, str]) -> str | None:
    """Return the HTML part: beside the text, or the body where that is HTML."""
    if "html" in headers:
        return headers["html"]
    kind = next((v for name, v in headers.items() if name.lower() == "content-type"), "")
    return row.body if kind.lower().startswith("text/html") else None


ROUTES = [list_sink, follow, clear, show_message, message_html]

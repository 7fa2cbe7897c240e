"""Pages for eyes: the queues, and what was caught instead of sent.

Server-rendered, no script at all. A caught mail's HTML is anybody's: it is shown in a sandboxed
frame, from a response whose own policy allows neither scripts nor loads.
"""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

import jinja2
import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.channels.registry import CONTRACT_CHANNELS
from outbox.errors import StoreUnavailable
from outbox.store import queues, sink
from outbox.store.sink import SinkFilter, SinkRow
from outbox_api.answers import write_cursor
from outbox_api.operations import Answer, operation
from outbox_api.problems import not_found
from outbox_api.requests import ApiRequest, read_query
from outbox_api.routes.job_views import cursor_number
from outbox_api.routes.monitoring import health_of
from outbox_api.runtime import runtime_of

REFRESH_S = 3
PAGE_MESSAGES = 50
OVERVIEW_MESSAGES = 12
MESSAGE_ID_MAX = 2**63 - 1

_POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; frame-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_FRAME_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)
_HEADERS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_RECEIVERS = {"sink": "the provider sink", "smtp": "a mail server", "http": "a web server"}


class PageQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the page renews itself."""

    live: Literal["on", "off"] = "on"


class SinkPageQuery(PageQuery, frozen=True, kw_only=True):
    """Which caught messages."""

    channel: Annotated[str, Meta(max_length=32)] | None = None
    cursor: Annotated[str, Meta(max_length=64)] | None = None


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("outbox_api", "pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["title"] = _title
    return environment


class _Typed(msgspec.Struct, frozen=True):
    """A webhook's body, as far as its title needs it."""

    type: str


def _page(request: ApiRequest, name: str, **values: object) -> ASGIResponse:
    text = _templates().get_template(f"{name}.html").render(
        mode=runtime_of(request).config.mode, now=datetime.now(UTC), **values
    )  # fmt: skip
    headers = {"content-security-policy": _POLICY, "x-frame-options": "DENY", **_HEADERS}
    return ASGIResponse(body=text.encode(), media_type="text/html", headers=headers)


@operation(
    "GET",
    "/",
    summary="Show queues and what was caught lately",
    tag="pages",
    needs="jobs:read",
    query=PageQuery,
    answers={200: Answer(None, "A page.", media_type="text/html")},
    prefix="",
    is_page=True,
)
async def overview(request: ApiRequest) -> ASGIResponse:
    """Show every queue's figures."""
    live = read_query(request, PageQuery).live == "on"
    runtime = runtime_of(request)
    wanted = SinkFilter(tenant_id=request.auth.tenant)
    shown: dict[str, object] = {"queues": None, "dispatchers": 0, "messages": []}
    with contextlib.suppress(StoreUnavailable):  # the page says so, and looks again
        async with runtime.database.transaction(request.auth.sees, read_only=True) as connection:
            rows = await queues.stats(connection, tenant=request.auth.tenant)
            store = await queues.gauges(connection)
            messages = await sink.sink(connection, wanted, before=None, limit=OVERVIEW_MESSAGES)
        shown = {
            "queues": [(row.queue, health_of(row)) for row in rows],
            "dispatchers": store.dispatchers,
            "messages": messages,
        }
    return _page(
        request,
        "overview",
        page="overview",
        refresh_s=REFRESH_S if live else None,
        can_refresh=True,
        **shown,
    )


@operation(
    "GET",
    "/sink",
    summary="Show what was caught instead of sent",
    tag="pages",
    needs="jobs:read",
    query=SinkPageQuery,
    answers={200: Answer(None, "A page.", media_type="text/html")},
    prefix="",
    is_page=True,
)
async def sink_page(request: ApiRequest) -> ASGIResponse:
    """List caught messages, newest first."""
    query = read_query(request, SinkPageQuery)
    before = cursor_number(query.cursor)
    wanted = SinkFilter(tenant_id=request.auth.tenant, channel=query.channel or None)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows = await sink.sink(connection, wanted, before=before, limit=PAGE_MESSAGES + 1)
    shown = rows[:PAGE_MESSAGES]
    older = None
    if len(rows) > PAGE_MESSAGES:
        older = f"cursor={write_cursor(shown[-1].message_id)}"
        older += f"&channel={query.channel}" if query.channel in CONTRACT_CHANNELS else ""
    still = query.live == "off" or query.cursor is not None or query.channel is not None
    return _page(
        request,
        "sink",
        page="sink",
        refresh_s=None if still else REFRESH_S,
        can_refresh=query.cursor is None and query.channel is None,
        messages=shown,
        channels=CONTRACT_CHANNELS,
        channel=query.channel,
        older=older,
    )


@operation(
    "GET",
    "/sink/{message_id:int}",
    summary="Show a caught message",
    tag="pages",
    needs="jobs:read",
    answers={200: Answer(None, "A page.", media_type="text/html")},
    prefix="",
    is_page=True,
)
async def message_page(request: ApiRequest, message_id: FromPath[int]) -> ASGIResponse:
    """Show one message: how it looks, what it says, its headers."""
    row = await _message(request, message_id)
    headers = _headers(row)
    html = _html(row, headers)
    return _page(
        request,
        "message",
        page="sink",
        refresh_s=None,
        can_refresh=False,
        m=row,
        caught_by=_RECEIVERS[row.caught_by],
        has_html=html is not None,
        text=_readable(row.body) if html != row.body else None,
        headers=[(name, value) for name, value in headers.items() if name != "html"],
    )


@operation(
    "GET",
    "/sink/{message_id:int}/html",
    summary="Show a caught message's HTML",
    tag="pages",
    needs="jobs:read",
    answers={200: Answer(None, "The message, as it was made.", media_type="text/html")},
    prefix="",
    is_page=True,
)
async def message_html(request: ApiRequest, message_id: FromPath[int]) -> ASGIResponse:
    """Show the HTML part, for the sandboxed frame."""
    row = await _message(request, message_id)
    html = _html(row, _headers(row))
    if html is None:
        raise not_found("HTML part")
    headers = {"content-security-policy": _FRAME_POLICY, **_HEADERS}
    return ASGIResponse(body=html.encode(), media_type="text/html", headers=headers)


@operation(
    "GET",
    "/assets/outbox.css",
    summary="Show the pages' style",
    tag="pages",
    needs="open",
    answers={200: Answer(None, "A style sheet.", media_type="text/css")},
    prefix="",
    is_page=True,
)
async def style(request: ApiRequest) -> ASGIResponse:
    """Show the style sheet; it is the only thing that the pages load."""
    headers = {"x-content-type-options": "nosniff", "cache-control": "max-age=300"}
    return ASGIResponse(body=_css(), media_type="text/css", headers=headers)


@cache
def _css() -> bytes:
    return files("outbox_api").joinpath("pages", "outbox.css").read_bytes()


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


def _title(row: SinkRow) -> str:
    """Return what a message goes by: its subject, or for want of one, its event's type."""
    if row.subject:
        return row.subject
    if row.channel == "email":
        return "(no subject)"
    with contextlib.suppress(msgspec.DecodeError):
        return msgspec.json.decode(row.body, type=_Typed).type
    return row.channel


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
    return {name: value if isinstance(value, str) else str(value) for name, value in found.items()}


def _html(row: SinkRow, headers: dict[str, str]) -> str | None:
    """Return the HTML part: beside the text, or the body where that is HTML."""
    if "html" in headers:
        return headers["html"]
    kind = next((v for name, v in headers.items() if name.lower() == "content-type"), "")
    return row.body if kind.lower().startswith("text/html") else None


ROUTES = [overview, sink_page, message_page, message_html, style]

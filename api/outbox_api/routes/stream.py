"""The stream of what happens to jobs, by server-sent events and by WebSocket."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated
from uuid import UUID

import msgspec
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import Fault
from outbox.store.stream import Cursor, read_cursor, write_cursor
from outbox_api import samples
from outbox_api.following import EVENTS, JobEvent, Reader, Wanted
from outbox_api.live import EventStream, Socket, deny
from outbox_api.operations import Answer, operation, socket_route
from outbox_api.problems import Problem, invalid
from outbox_api.requests import ApiRequest, ApiSocket, header, read_query
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantId, tenant_filter

PATH = "/stream"
RETRY_MS = 2_000
HEADERS = {"cache-control": "no-store"}

Names = Annotated[str, Meta(min_length=1, max_length=4_096)]
CursorText = Annotated[str, Meta(max_length=60_000)]


class StreamQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which events; `queue` and `event` take several, with commas between them.

    `last_event_id` is for clients that cannot set the header.
    """

    queue: Names | None = None
    event: Names | None = None
    job_id: UUID | None = None
    tenant_id: TenantId | None = None
    last_event_id: CursorText | None = None


_EVENT = {
    "event": "retrying",
    "at": samples.AT,
    "job_id": samples.JOB_ID,
    "tenant_id": "default",
    "queue": "email",
    "channel": "email",
    "template_code": "welcome_email",
    "user_id": samples.USER_ID,
    "event_id": samples.EVENT_ID,
    "campaign_id": None,
    "test": False,
    "series": 1,
    "attempt": 1,
    "provider": "smtp",
    "error_class": "temporary",
    "error_code": "smtp.421",
    "duration_ms": 212,
    "next_attempt_at": samples.AT,
    "progress": None,
}


@operation(
    "GET",
    PATH,
    summary="Follow what happens to jobs",
    tag="jobs",
    needs="jobs:read",
    query=StreamQuery,
    headers=("Last-Event-ID",),
    answers={
        200: Answer(
            JobEvent,
            "Server-sent events, without an end. `id` is where to go on from.",
            _EVENT,
            "text/event-stream",
        )
    },
    problems=(400,),
)
async def follow_jobs(request: ApiRequest) -> ASGIResponse:
    """Follow jobs live: enqueued, progress, retrying, stalled, completed, failed, and so on.

    With the header Last-Event-ID it begins right behind that event, up to seven days back, and
    leaves nothing out, but that of `progress` only the last report of each running attempt is
    kept; an event `gap` says what was too far back. It ends after ten minutes, or
    when the reader takes nothing for ten seconds: connect again, with the id of the last event.
    The same address takes a WebSocket, which gets `{"id", "event", "data"}` as texts.
    """
    wanted, cursor = _read(request)
    runtime = runtime_of(request)
    reader = Reader(runtime.tail, runtime.database, wanted, cursor)
    return EventStream(runtime.streams, _as_events(reader), HEADERS)


async def follow_by_socket(socket: ApiSocket) -> None:
    """Follow jobs by WebSocket; what the client sends is not looked at."""
    try:
        wanted, cursor = _read(socket)
        runtime = runtime_of(socket)
        taken = Socket(runtime.streams, socket.scope, socket.receive, socket.send)
    except Problem as problem:
        await deny(socket.scope, socket.send, problem)
        return
    await taken.run(_as_texts(Reader(runtime.tail, runtime.database, wanted, cursor)))


def _read(request: ApiRequest | ApiSocket) -> tuple[Wanted, Cursor | None]:
    query = read_query(request, StreamQuery)
    tenant = tenant_filter(request.auth, query.tenant_id)
    faults = []
    events = _names(query.event)
    for name in sorted((events or frozenset()) - EVENTS):
        faults.append(Fault("/query/event", f"{name!r} is none of {', '.join(sorted(EVENTS))}"))
    text, where = query.last_event_id, "/query/last_event_id"
    if text is None:
        text, where = header(request, b"last-event-id"), "/header/last-event-id"
    cursor = read_cursor(text) if text else None
    if text and cursor is None:
        faults.append(Fault(where, "is no id of an event of this stream"))
    if faults:
        raise invalid(faults, status=400)
    wanted = Wanted(
        sees=tenant or request.auth.sees,
        test=request.auth.test,
        queues=_names(query.queue),
        events=events,
        job_id=query.job_id,
    )
    return wanted, cursor


def _names(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(name.strip() for name in text.split(","))


async def _as_events(reader: Reader) -> AsyncGenerator[bytes, None]:
    # (What has an id and no data moves a browser's last id on, and is no event.)
    yield b"retry: %d\n\n" % RETRY_MS
    async for told in reader.follow():
        body = b"id: %s\n" % write_cursor(told.cursor).encode()
        if told.name:
            body += b"event: %s\ndata: %s\n" % (told.name.encode(), msgspec.json.encode(told.body))
        yield body + b"\n"


async def _as_texts(reader: Reader) -> AsyncGenerator[str, None]:
    async for told in reader.follow():
        message: dict[str, object] = {
            "id": write_cursor(told.cursor),
            "event": told.name or "here",
        }
        if told.name:
            message["data"] = told.body
        yield msgspec.json.encode(message).decode()


ROUTES = [
    follow_jobs,
    socket_route(
        PATH,
        needs="jobs:read",
        summary="Follow what happens to jobs",
        query=StreamQuery,
        problems=(400, 401, 403, 503),
        handler=follow_by_socket,
    ),
]

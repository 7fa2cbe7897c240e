"""Users' WebSockets: a ticket for a page, and the socket itself."""

from __future__ import annotations

import base64
import binascii
import hmac
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import StoreUnavailable
from outbox.store import recipients
from outbox_api import samples
from outbox_api.answers import answer
from outbox_api.live import Socket, deny
from outbox_api.operations import PREFIX, Answer, operation, socket_route
from outbox_api.problems import Problem, unavailable
from outbox_api.requests import ApiRequest, ApiSocket, read_query
from outbox_api.routes.recipients import user_in
from outbox_api.runtime import Runtime, runtime_of
from outbox_api.sockets import UserSocket
from outbox_api.tenancy import TenantQuery, one_tenant

TICKET_S = 60
PURPOSE = b"ticket"


class Ticket(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Whose socket may be opened, until when (Unix time)."""

    tenant_id: str
    user_id: str
    until_s: int


class TicketView(msgspec.Struct, frozen=True, kw_only=True):
    """A ticket. `url` is the path to connect to."""

    ticket: str
    url: str
    expires_at: datetime


class SocketQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The ticket."""

    ticket: Annotated[str, Meta(min_length=1, max_length=2_048)]


@operation(
    "POST",
    "/recipients/{user_id:str}/socket-tickets",
    summary="Let a user open a WebSocket",
    tag="recipients",
    needs="jobs:write",
    query=TenantQuery,
    answers={
        201: Answer(
            TicketView,
            "Give it to the user's page, which has a minute to connect with it.",
            {
                "ticket": "k6dkZWZhdWx0…",
                "url": f"{PREFIX}/ws?ticket=k6dkZWZhdWx0…",
                "expires_at": samples.AT,
            },
        )
    },
    problems=(422,),
    path_examples={"user_id": samples.USER_ID},
)
async def make_ticket(request: ApiRequest, user_id: FromPath[str]) -> ASGIResponse:
    """Make a ticket for a socket that gets the user's `ws` messages, and nothing else.

    Call it from your backend, for the user who has signed in there; pages must not have the key.
    """
    user = user_in(user_id)
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    until_s = int(time.time()) + TICKET_S
    told = msgspec.msgpack.encode(Ticket(tenant, user, until_s))
    text = _base64(told + await runtime_of(request).sessions.sign(PURPOSE, told))
    view = TicketView(
        ticket=text,
        url=f"{PREFIX}/ws?ticket={text}",
        expires_at=datetime.fromtimestamp(until_s, UTC),
    )
    return answer(view, status=201)


async def open_socket(socket: ApiSocket) -> None:
    """Give a user's page what comes on the channel `ws`; it acknowledges each message."""
    runtime = runtime_of(socket)
    try:
        ticket = await _read(runtime, read_query(socket, SocketQuery).ticket)
        taken = Socket(runtime.sockets, socket.scope, socket.receive, socket.send)
        async with runtime.hub.socket(ticket.tenant_id, ticket.user_id) as own:
            await taken.run(_texts(runtime, ticket, own), own.took)
    except Problem as problem:
        await deny(socket.scope, socket.send, problem)
    except StoreUnavailable:
        await deny(socket.scope, socket.send, unavailable())


async def _texts(runtime: Runtime, ticket: Ticket, own: UserSocket) -> AsyncGenerator[str, None]:
    async with runtime.database.transaction(ticket.tenant_id, read_only=True) as connection:
        _, unread = await recipients.inbox(
            connection, ticket.tenant_id, ticket.user_id, unread=True, before=None, limit=1
        )
    async for text in own.texts(ticket.user_id, unread):
        yield text


async def _read(runtime: Runtime, text: str) -> Ticket:
    """Return what a ticket says. Raises Problem 401."""
    try:
        whole = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        told, mac = whole[:-32], whole[-32:]
        ticket = msgspec.msgpack.decode(told, type=Ticket)
    except (binascii.Error, ValueError):
        raise Problem(401, "This is no ticket.") from None
    if not hmac.compare_digest(mac, await runtime.sessions.sign(PURPOSE, told)):
        raise Problem(401, "This is no ticket.")
    if ticket.until_s <= time.time():
        raise Problem(401, "The ticket is too old: get another one.")
    return ticket


def _base64(whole: bytes) -> str:
    return base64.urlsafe_b64encode(whole).rstrip(b"=").decode()


ROUTES = [
    make_ticket,
    socket_route(
        "/ws",
        needs="open",
        summary="Get a user's messages live, with a ticket",
        query=SocketQuery,
        problems=(400, 401, 403, 503),
        handler=open_socket,
    ),
]

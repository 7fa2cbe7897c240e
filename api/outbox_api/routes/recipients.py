"""The directory of recipients, their inboxes, and erasure (api.md 2)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from litestar.params import FromPath
from litestar.response.base import ASGIResponse
from msgspec import Meta

from outbox.errors import Fault
from outbox.render import normalise_locale
from outbox.store import recipients
from outbox.store.recipients import Erased, InboxRow, RecipientParts, RecipientRow
from outbox.zones import is_zone
from outbox_api import samples
from outbox_api.answers import JsonObject, answer, left_out, no_content, raw, write_cursor, written
from outbox_api.operations import Answer, Body, operation
from outbox_api.paging import Limit
from outbox_api.problems import invalid, not_found
from outbox_api.requests import ApiRequest, read_query, read_struct
from outbox_api.routes.job_views import cursor_number
from outbox_api.runtime import runtime_of
from outbox_api.tenancy import TenantQuery, one_tenant

PATH = "/recipients/{user_id:str}"
ATTRIBUTES_BYTES_MAX = 65_536
MESSAGE_ID_MAX = 2**63 - 1

_MAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,255}")
_CLOCK = Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]


class QuietHours(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From when to when, `HH:MM` in the recipient's time zone; over midnight too."""

    start: _CLOCK = msgspec.field(name="from")
    end: _CLOCK = msgspec.field(name="to")


class RecipientBody(msgspec.Struct, frozen=True, kw_only=True):
    """A recipient, whole: what is left out is not known."""

    email: Annotated[str, Meta(max_length=320)] | None = None
    phone: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    telegram_chat_id: Annotated[str, Meta(min_length=1, max_length=64)] | None = None
    locale: Annotated[str, Meta(max_length=35)] | None = None
    timezone: Annotated[str, Meta(max_length=64)] | None = None
    attributes: JsonObject = msgspec.field(default_factory=left_out)
    opt_outs: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=64)]], Meta(max_length=100)
    ] = []
    quiet_hours: QuietHours | None = None


class RecipientView(msgspec.Struct, frozen=True, kw_only=True):
    """A recipient."""

    tenant_id: str
    user_id: str
    email: str | None
    phone: str | None
    telegram_chat_id: str | None
    locale: str | None
    timezone: str | None
    attributes: JsonObject
    opt_outs: list[str]
    quiet_hours: msgspec.Raw | None
    updated_at: datetime


class InboxQuery(TenantQuery, frozen=True, kw_only=True):
    """A page of messages."""

    unread: bool = False
    limit: Limit = 50
    cursor: Annotated[str, Meta(max_length=64)] | None = None


class InboxView(msgspec.Struct, frozen=True, kw_only=True):
    """An in-app message."""

    id: int
    job_id: UUID | None
    subject: str | None
    body: str
    data: JsonObject
    created_at: datetime
    read_at: datetime | None


class InboxPage(msgspec.Struct, frozen=True, kw_only=True):
    """Messages, newest first; `unread` counts all of them."""

    items: list[InboxView]
    unread: int
    next_cursor: str | None = None


_BODY = {
    "email": "user@example.com",
    "phone": "+77011234567",
    "telegram_chat_id": None,
    "locale": "ru",
    "timezone": "Asia/Almaty",
    "attributes": {"plan": "pro"},
    "opt_outs": ["marketing"],
    "quiet_hours": {"from": "22:00", "to": "08:00"},
}
_VIEW = _BODY | {"tenant_id": "default", "user_id": samples.USER_ID, "updated_at": samples.AT}
_MESSAGE = {
    "id": 7,
    "job_id": samples.JOB_ID,
    "subject": "A film for you",
    "body": "The Matrix is on.",
    "data": {},
    "created_at": samples.AT,
    "read_at": None,
}
_PATH = {"user_id": samples.USER_ID}


def user_in(user_id: str) -> str:
    """Return the path's user. Raises Problem 422."""
    if not 1 <= len(user_id) <= 128:
        raise invalid([Fault("/path/user_id", "must have 1 to 128 characters")])
    return user_id


@operation(
    "PUT",
    PATH,
    summary="Store a recipient",
    tag="recipients",
    needs="jobs:write",
    query=TenantQuery,
    body=Body(kind=RecipientBody, examples={"whole": _BODY}),
    answers={
        201: Answer(RecipientView, "A new recipient.", _VIEW),
        200: Answer(RecipientView, "Replaced, whole.", _VIEW),
    },
    problems=(400, 413, 415, 422),
    path_examples=_PATH,
)
async def put_recipient(request: ApiRequest, user_id: FromPath[str]) -> ASGIResponse:
    """Put a recipient into the directory, in place of what it knew."""
    user = user_in(user_id)
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    parts = _parts(await read_struct(request, RecipientBody))
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        created = await recipients.put_recipient(connection, tenant, user, parts)
        row = await recipients.get_recipient(connection, tenant, user)
    if row is None:
        raise not_found("recipient")
    return answer(_view(row), status=201 if created else 200)


def _parts(body: RecipientBody) -> RecipientParts:
    faults = []
    if body.email is not None and not _MAIL.fullmatch(body.email):
        faults.append(Fault("/email", "must be a mail address"))
    for name in ("phone", "telegram_chat_id"):
        value: str | None = getattr(body, name)
        if value is not None and not value.isprintable():
            faults.append(Fault(f"/{name}", "must be printable"))
    locale = normalise_locale(body.locale)
    if body.locale is not None and locale is None:
        faults.append(Fault("/locale", "must be a language tag"))
    if body.timezone is not None and not is_zone(body.timezone):
        faults.append(Fault("/timezone", "must be a time zone's name, such as Asia/Almaty"))
    attributes = written(body.attributes) or "{}"
    if not attributes.lstrip().startswith("{"):
        faults.append(Fault("/attributes", "must be an object"))
    elif len(attributes.encode()) > ATTRIBUTES_BYTES_MAX:
        faults.append(
            Fault("/attributes", f"must not be longer than {ATTRIBUTES_BYTES_MAX} bytes")
        )
    if faults:
        raise invalid(faults)
    quiet = msgspec.json.encode(body.quiet_hours).decode() if body.quiet_hours else None
    return RecipientParts(
        email=body.email,
        phone=body.phone,
        telegram_chat_id=body.telegram_chat_id,
        locale=locale,
        timezone=body.timezone,
        attributes=attributes,
        opt_outs=sorted(set(body.opt_outs)),
        quiet_hours=quiet,
    )


@operation(
    "GET",
    PATH,
    summary="Show a recipient",
    tag="recipients",
    needs="jobs:read",
    query=TenantQuery,
    answers={200: Answer(RecipientView, "As the directory has it.", _VIEW)},
    problems=(404, 422),
    path_examples=_PATH,
)
async def show_recipient(request: ApiRequest, user_id: FromPath[str]) -> ASGIResponse:
    """Show what the directory knows of a user."""
    user = user_in(user_id)
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        row = await recipients.get_recipient(connection, tenant, user)
    if row is None:
        raise not_found("recipient")
    return answer(_view(row))


@operation(
    "DELETE",
    PATH,
    summary="Delete a recipient",
    tag="recipients",
    needs="jobs:write",
    query=TenantQuery,
    answers={
        204: Answer(None, "Out of the directory, devices too. What was sent is still on record.")
    },
    problems=(404, 422),
    path_examples=_PATH,
)
async def delete_recipient(request: ApiRequest, user_id: FromPath[str]) -> ASGIResponse:
    """Take a recipient out of the directory. Erasure is DELETE …/data."""
    user = user_in(user_id)
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        if not await recipients.delete_recipient(connection, tenant, user):
            raise not_found("recipient")
    return no_content()


@operation(
    "DELETE",
    PATH + "/data",
    summary="Erase a person",
    tag="recipients",
    needs="admin",
    query=TenantQuery,
    answers={
        200: Answer(
            Erased,
            "Payloads, addresses, events and texts are gone; a pseudonym and hashes remain.",
            {"pseudonym": "erased:5f0c2f7c8a1d4b3e9f60a1b2", "jobs": 12, "cancelled": 1},
        )
    },
    problems=(422,),
    path_examples=_PATH,
)
async def erase_recipient(request: ApiRequest, user_id: FromPath[str]) -> ASGIResponse:
    """Withdraw the person's live jobs, and erase all personal data. Doing it again is harmless."""
    user = user_in(user_id)
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        erased = await recipients.erase_recipient(
            connection, tenant, user, actor=request.auth.name
        )
    return answer(erased)


@operation(
    "GET",
    PATH + "/inbox",
    summary="List a user's in-app messages",
    tag="recipients",
    needs="jobs:read",
    query=InboxQuery,
    answers={
        200: Answer(
            InboxPage,
            "A page of messages, newest first, and how many are unread in all.",
            {"items": [_MESSAGE], "unread": 1, "next_cursor": None},
        )
    },
    problems=(400, 422),
    path_examples=_PATH,
)
async def list_inbox(request: ApiRequest, user_id: FromPath[str]) -> ASGIResponse:
    """List messages that the channel `inbox` delivered."""
    user = user_in(user_id)
    query = read_query(request, InboxQuery)
    before = cursor_number(query.cursor)
    async with runtime_of(request).database.transaction(
        request.auth.sees, read_only=True
    ) as connection:
        rows, unread = await recipients.inbox(
            connection,
            one_tenant(request.auth, query.tenant_id),
            user,
            unread=query.unread,
            before=before,
            limit=query.limit + 1,
        )
    shown = rows[: query.limit]
    more = write_cursor(shown[-1].message_id) if len(rows) > query.limit else None
    items = [_message(row) for row in shown]
    return answer(InboxPage(items=items, unread=unread, next_cursor=more))


@operation(
    "POST",
    PATH + "/inbox/{message_id:int}/read",
    summary="Mark an in-app message as read",
    tag="recipients",
    needs="jobs:write",
    query=TenantQuery,
    answers={200: Answer(InboxView, "Read.", _MESSAGE | {"read_at": samples.AT})},
    problems=(404, 422),
    path_examples=_PATH | {"message_id": "7"},
)
async def read_message(
    request: ApiRequest, user_id: FromPath[str], message_id: FromPath[int]
) -> ASGIResponse:
    """Note when a message was read; the first time counts."""
    user = user_in(user_id)
    tenant = one_tenant(request.auth, read_query(request, TenantQuery).tenant_id)
    if not 0 <= message_id <= MESSAGE_ID_MAX:
        raise not_found("message")
    async with runtime_of(request).database.transaction(request.auth.sees) as connection:
        row = await recipients.read_inbox(connection, tenant, user, message_id)
    if row is None:
        raise not_found("message")
    return answer(_message(row))


def _view(row: RecipientRow) -> RecipientView:
    fields = msgspec.structs.asdict(row)
    fields["attributes"] = raw(row.attributes)
    fields["quiet_hours"] = raw(row.quiet_hours)
    return RecipientView(**fields)


def _message(row: InboxRow) -> InboxView:
    return InboxView(
        id=row.message_id,
        job_id=row.job_id,
        subject=row.subject,
        body=row.body,
        data=msgspec.Raw(row.data.encode()),
        created_at=row.created_at,
        read_at=row.read_at,
    )


ROUTES = [
    put_recipient,
    show_recipient,
    delete_recipient,
    erase_recipient,
    list_inbox,
    read_message,
]

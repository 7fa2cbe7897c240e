"""The recipient directory, its inboxes, erasure, and who gets nothing more.

Every function runs on a connection of `Database.transaction`. `tenant` None means all tenants,
where it may be None.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from outbox.opting_out import OptOut
from outbox.store.pool import Connection, execute, fetch, fetch_one
from outbox_sql import query

NO_PROVIDER = UUID(int=0)


class RecipientParts(msgspec.Struct, frozen=True, kw_only=True):
    """A recipient. `attributes` and `quiet_hours` are JSON text."""

    email: str | None
    phone: str | None
    telegram_chat_id: str | None
    locale: str | None
    timezone: str | None
    attributes: str
    opt_outs: list[str]
    quiet_hours: str | None


class RecipientRow(RecipientParts, frozen=True, kw_only=True):
    """A recipient as the directory has it."""

    tenant_id: str
    user_id: str
    updated_at: datetime


class Erased(msgspec.Struct, frozen=True):
    """What an erasure did."""

    pseudonym: str
    jobs: int
    cancelled: int


class InboxRow(msgspec.Struct, frozen=True, kw_only=True):
    """An in-app message. `data` is JSON text."""

    message_id: int
    job_id: UUID | None
    subject: str | None
    body: str
    data: str
    created_at: datetime
    read_at: datetime | None


class Suppression(msgspec.Struct, frozen=True):
    """An address that gets nothing more on a channel."""

    tenant_id: str
    channel: str
    address: str
    code: str
    reason: str | None
    created_at: datetime
    expires_at: datetime | None


async def get_recipient(connection: Connection, tenant: str, user_id: str) -> RecipientRow | None:
    """Return a recipient."""
    parameters = {"tenant": tenant, "user_id": user_id}
    return await fetch_one(connection, RecipientRow, "recipient_get", parameters)


async def put_recipient(
    connection: Connection, tenant: str, user_id: str, parts: RecipientParts
) -> bool:
    """Put a recipient into the directory, whole; True when it is a new one."""
    parameters = msgspec.structs.asdict(parts) | {"tenant": tenant, "user_id": user_id}
    cursor = await connection.execute(query("recipient_put"), parameters)
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def list_recipients(
    connection: Connection,
    *,
    tenant: str | None,
    wanted: str | None,
    after: tuple[str, str],
    limit: int,
) -> list[RecipientRow]:
    """Return up to `limit` recipients whose id begins so, or who have that address."""
    parameters = {
        "tenant": tenant,
        "wanted": wanted,
        "after_tenant": after[0],
        "after_user": after[1],
        "limit": limit,
    }
    return await fetch(connection, RecipientRow, "recipient_list", parameters, prepare=False)


async def delete_recipient(connection: Connection, tenant: str, user_id: str) -> bool:
    """Take a recipient out of the directory; False when there was none."""
    parameters = {"tenant": tenant, "user_id": user_id}
    return await execute(connection, "recipient_delete", parameters) > 0


async def erase_recipient(
    connection: Connection, tenant: str, user_id: str, *, actor: str
) -> Erased:
    """Erase a person's data everywhere; what remains is a pseudonym."""
    parameters = {"tenant": tenant, "user_id": user_id, "actor": actor}
    erased = await fetch_one(connection, Erased, "recipient_erase", parameters)
    assert erased is not None
    return erased


async def opt_out(connection: Connection, wish: OptOut, *, at: datetime) -> None:
    """Note that a recipient wants no more of a category, and by which job they said so."""
    parameters = msgspec.structs.asdict(wish) | {"tenant": wish.tenant_id}
    await execute(connection, "recipient_opt_out", parameters)
    told = [{"job_id": wish.job_id, "status": "opted_out", "at": at, "detail": wish.category}]
    await connection.execute(
        query("receipts_take"),
        {
            "tenant": wish.tenant_id,
            "provider_id": NO_PROVIDER,
            "provider": "unsubscribe",
            "events": msgspec.json.encode(told).decode(),
        },
    )


async def inbox(
    connection: Connection,
    tenant: str,
    user_id: str,
    *,
    unread: bool,
    before: int | None,
    limit: int,
) -> tuple[list[InboxRow], int]:
    """Return a page of messages, newest first, and how many are unread in all."""
    who = {"tenant": tenant, "user_id": user_id}
    parameters = {**who, "unread": unread, "before": before, "limit": limit}
    rows = await fetch(connection, InboxRow, "recipient_inbox", parameters, prepare=False)
    cursor = await connection.execute(query("recipient_inbox_unread"), who)
    count = await cursor.fetchone()
    return rows, int(count[0]) if count is not None else 0


async def read_inbox(
    connection: Connection, tenant: str, user_id: str, message_id: int
) -> InboxRow | None:
    """Mark a message as read; None when there is none."""
    parameters = {"tenant": tenant, "user_id": user_id, "message_id": message_id}
    return await fetch_one(connection, InboxRow, "recipient_inbox_read", parameters)


async def list_suppressions(
    connection: Connection,
    *,
    tenant: str | None,
    channel: str | None,
    address: str | None,
    after: tuple[str, str, str],
    limit: int,
) -> list[Suppression]:
    """Return up to `limit` suppressed addresses after (tenant, channel, address)."""
    return await fetch(
        connection,
        Suppression,
        "suppression_list",
        {
            "tenant": tenant,
            "channel": channel,
            "address": address,
            "after_tenant": after[0],
            "after_channel": after[1],
            "after_address": after[2],
            "limit": limit,
        },
        prepare=False,
    )


async def put_suppression(
    connection: Connection,
    *,
    tenant: str,
    channel: str,
    address: str,
    code: str,
    reason: str | None,
    expires_at: datetime | None,
) -> Suppression:
    """Let an address receive nothing more on a channel, for ever or until `expires_at`."""
    parameters = {
        "tenant": tenant,
        "channel": channel,
        "address": address,
        "code": code,
        "reason": reason,
        "expires_at": expires_at,
    }
    stored = await fetch_one(connection, Suppression, "suppression_put", parameters)
    assert stored is not None
    return stored


async def delete_suppression(
    connection: Connection, *, tenant: str, channel: str, address: str
) -> bool:
    """Let an address receive again; False when it was not suppressed."""
    parameters = {"tenant": tenant, "channel": channel, "address": address}
    return await execute(connection, "suppression_delete", parameters) > 0

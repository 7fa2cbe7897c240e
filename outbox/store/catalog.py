"""What jobs refer to, and who may hand them in: keys, tenants, templates, recipients.

Suppressions and the sink lie here too. Every function runs on a connection of
`Database.transaction`. `tenant` None means all tenants, where it may be None.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Literal, TypeAlias
from uuid import UUID

import msgspec

from outbox.store.pool import Connection, execute, fetch, fetch_one
from outbox_sql import query

KEY_PREFIX = "obx_"
KeepContent: TypeAlias = Literal["none", "hash", "full"]


class KeyOwner(msgspec.Struct, frozen=True):
    """Whose key it is. `tenant_id` '*': service-wide."""

    key_id: UUID
    name: str
    tenant_id: str
    scopes: list[str]
    expires_at: datetime | None


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is stored; the key itself is not."""

    key_id: UUID
    name: str
    prefix: str
    tenant_id: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class TenantParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant sets for itself. `sender`: the From of its mail by the operator's provider.

    `own_providers`: nothing of its goes out by the operator's own providers.
    """

    default_locale: str | None = None
    timezone: str | None = None
    sender: str | None = None
    phone_region: str | None = None
    own_providers: bool = False


class Tenant(TenantParts, frozen=True, kw_only=True):
    """A tenant's own settings, as they are stored."""

    tenant_id: str
    created_at: datetime


class TemplateRow(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a template. `schema` is JSON text."""

    tenant_id: str
    code: str
    channel: str
    locale: str
    version: int
    subject: str | None
    body_text: str | None
    body_html: str | None
    schema: str | None
    keep_content: KeepContent
    created_at: datetime
    created_by: str | None
    deleted_at: datetime | None


class TemplateSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A template in a list, without its bodies."""

    tenant_id: str
    code: str
    channel: str
    locale: str
    version: int
    subject: str | None
    keep_content: KeepContent
    created_at: datetime
    created_by: str | None


class TemplateKey(msgspec.Struct, frozen=True):
    """Which template."""

    tenant: str
    code: str
    channel: str
    locale: str


class TemplateParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a PUT brings. `schema` is JSON text."""

    subject: str | None
    text: str | None
    html: str | None
    schema: str | None
    keep_content: KeepContent


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


class SinkRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was caught instead of sent. `headers` is JSON text."""

    message_id: int
    tenant_id: str
    caught_by: str
    channel: str
    job_id: UUID | None
    recipient: str | None
    subject: str | None
    body: str
    headers: str
    created_at: datetime


class SinkFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which caught messages; None is any."""

    tenant_id: str | None = None
    channel: str | None = None
    recipient: str | None = None
    job_id: UUID | None = None
    message_id: int | None = None


def new_key() -> str:
    """Return a new API key: 256 random bits."""
    return KEY_PREFIX + secrets.token_urlsafe(32)


def hash_of_key(key: str) -> bytes:
    """Return the hash under which a key is stored: it is random, so plain SHA-256 does."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


async def authenticate(connection: Connection, key_sha256: bytes) -> KeyOwner | None:
    """Return whose key this is, and note its use; None when it is nobody's any more."""
    return await fetch_one(connection, KeyOwner, "key_authenticate", {"hash": key_sha256})


async def create_key(
    connection: Connection,
    key: str,
    *,
    name: str,
    tenant: str,
    scopes: Sequence[str],
    expires_at: datetime | None = None,
) -> ApiKey:
    """Store a new key by its hash. `tenant` '*': service-wide."""
    created = await fetch_one(
        connection,
        ApiKey,
        "key_create",
        {
            "name": name,
            "hash": hash_of_key(key),
            "prefix": key[: len(KEY_PREFIX) + 6],
            "tenant": tenant,
            "scopes": list(scopes),
            "expires_at": expires_at,
        },
    )
    assert created is not None
    return created


async def list_keys(connection: Connection, *, tenant: str | None) -> list[ApiKey]:
    """Return the keys, newest first."""
    return await fetch(connection, ApiKey, "key_list", {"tenant": tenant})


async def revoke_key(connection: Connection, key_id: UUID, *, tenant: str | None) -> ApiKey | None:
    """Revoke a key; None when there is none."""
    parameters = {"key_id": key_id, "tenant": tenant}
    return await fetch_one(connection, ApiKey, "key_revoke", parameters)


async def note_action(
    connection: Connection, *, actor: str, action: str, tenant: str, detail: object
) -> None:
    """Write down who did what. `detail` must hold no secret and no personal data."""
    await execute(
        connection,
        "operator_action",
        {
            "actor": actor,
            "action": action,
            "tenant": tenant,
            "detail": msgspec.json.encode(detail).decode(),
        },
    )


async def list_tenants(connection: Connection, *, tenant: str | None) -> list[Tenant]:
    """Return the tenants that were set up."""
    return await fetch(connection, Tenant, "tenant_list", {"tenant": tenant})


async def put_tenant(connection: Connection, tenant: str, parts: TenantParts) -> Tenant:
    """Set up a tenant, or change it, whole."""
    parameters = msgspec.structs.asdict(parts) | {"tenant": tenant}
    stored = await fetch_one(connection, Tenant, "tenant_put", parameters)
    assert stored is not None
    return stored


async def get_template(
    connection: Connection, key: TemplateKey, *, version: int | None = None
) -> TemplateRow | None:
    """Return the newest version, deleted or not, or the one asked for."""
    parameters = msgspec.structs.asdict(key) | {"version": version}
    return await fetch_one(connection, TemplateRow, "template_latest", parameters)


async def put_template(
    connection: Connection, key: TemplateKey, parts: TemplateParts, *, actor: str
) -> tuple[TemplateRow, bool]:
    """Make a new version; the same content again is the same version. Tells which it was."""
    await connection.execute(query("template_lock"), msgspec.structs.asdict(key))
    latest = await get_template(connection, key)
    if latest is not None and latest.deleted_at is None and _same(latest, parts):
        return latest, False
    parameters = msgspec.structs.asdict(key) | msgspec.structs.asdict(parts) | {"actor": actor}
    stored = await fetch_one(connection, TemplateRow, "template_put", parameters)
    assert stored is not None
    return stored, True


def _same(row: TemplateRow, parts: TemplateParts) -> bool:
    schema = msgspec.json.decode(parts.schema) if parts.schema is not None else None
    kept = msgspec.json.decode(row.schema) if row.schema is not None else None
    return (row.subject, row.body_text, row.body_html, kept, row.keep_content) == (
        parts.subject,
        parts.text,
        parts.html,
        schema,
        parts.keep_content,
    )


async def delete_template(connection: Connection, key: TemplateKey) -> bool:
    """Take a template out of use; False when there is none."""
    return await execute(connection, "template_delete", msgspec.structs.asdict(key)) > 0


async def template_versions(
    connection: Connection, key: TemplateKey, *, before: int | None, limit: int
) -> list[TemplateRow]:
    """Return up to `limit` versions below `before`, newest first."""
    parameters = msgspec.structs.asdict(key) | {"before": before, "limit": limit}
    return await fetch(connection, TemplateRow, "template_versions", parameters, prepare=False)


async def list_templates(
    connection: Connection,
    *,
    tenant: str,
    code: str | None,
    channel: str | None,
    after: tuple[str, str, str],
    limit: int,
) -> list[TemplateSummary]:
    """Return up to `limit` templates in use after (code, channel, locale)."""
    return await fetch(
        connection,
        TemplateSummary,
        "template_list",
        {
            "tenant": tenant,
            "code": code,
            "channel": channel,
            "after_code": after[0],
            "after_channel": after[1],
            "after_locale": after[2],
            "limit": limit,
        },
        prepare=False,
    )


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


async def sink(
    connection: Connection, wanted: SinkFilter, *, before: int | None, limit: int
) -> list[SinkRow]:
    """Return up to `limit` caught messages numbered below `before`, newest first."""
    parameters = msgspec.structs.asdict(wanted) | {"before": before, "limit": limit}
    parameters["tenant"] = parameters.pop("tenant_id")
    return await fetch(connection, SinkRow, "sink_list", parameters, prepare=False)


async def clear_sink(connection: Connection, *, tenant: str | None) -> int:
    """Empty the sink; return how many messages it held."""
    return await execute(connection, "sink_clear", {"tenant": tenant})

"""What jobs refer to, and who may hand them in: keys, tenants, templates.

Every function runs on a connection of
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

from outbox.error_rules import ErrorRule
from outbox.message import Mode
from outbox.quiet import SendWindow
from outbox.store.jobs import Enqueued
from outbox.store.pool import Connection, execute, fetch, fetch_one
from outbox_sql import query

KEY_PREFIX = "obx_"
TEST_KEY_PREFIX = "obx_test_"
KeepContent: TypeAlias = Literal["none", "hash", "full"]
OnAmbiguous: TypeAlias = Literal["resend", "hold", "fail"]


class KeyOwner(msgspec.Struct, frozen=True):
    """Whose key it is. `tenant_id` '*': service-wide."""

    key_id: UUID
    name: str
    tenant_id: str
    scopes: list[str]
    mode: Mode
    expires_at: datetime | None


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is stored; the key itself is not."""

    key_id: UUID
    name: str
    prefix: str
    tenant_id: str
    scopes: list[str]
    mode: Mode
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class TenantParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant sets for itself. `sender`: the From of its mail by the operator's provider.

    `own_providers`: nothing of its goes out by the operator's own providers. `send_windows` by
    category; `*` is for those without one of their own.
    """

    default_locale: str | None = None
    timezone: str | None = None
    sender: str | None = None
    phone_region: str | None = None
    own_providers: bool = False
    send_windows: dict[str, SendWindow] = {}
    error_rules: list[ErrorRule] = []


class TenantRow(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant as the driver reads it: its JSON is plain objects."""

    tenant_id: str
    default_locale: str | None
    timezone: str | None
    sender: str | None
    phone_region: str | None
    own_providers: bool
    send_windows: dict[str, object]
    error_rules: list[object]
    created_at: datetime

    def tenant(self) -> Tenant:
        """Return it with its types."""
        return msgspec.convert(self, Tenant, from_attributes=True)


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
    on_ambiguous: OnAmbiguous
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
    on_ambiguous: OnAmbiguous = "resend"


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a template was asked for by: its JSON, and what the directory has of its user."""

    job_id: UUID
    job: str
    user_json: str


def new_key(mode: Mode = "live") -> str:
    """Return a new API key: 256 random bits. A test key shows by its prefix."""
    prefix = TEST_KEY_PREFIX if mode == "test" else KEY_PREFIX
    return prefix + secrets.token_urlsafe(32)


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
    mode: Mode = "live",
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
            "prefix": key[: len(TEST_KEY_PREFIX if mode == "test" else KEY_PREFIX) + 6],
            "tenant": tenant,
            "scopes": list(scopes),
            "mode": mode,
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


async def note_resend(
    connection: Connection, *, actor: str, tenant: str, job_id: UUID, status: str, made: Enqueued
) -> None:
    """Write down that a job like `job_id`, which is left as it is (`status`), was made."""
    await note_action(
        connection,
        actor=actor,
        action="resend",
        tenant=tenant,
        detail={
            "job_id": job_id,
            "before": {"status": status, "resent_as": None},
            "after": {"status": status, "resent_as": made.job_id},
        },
    )


async def note_unless_told(
    connection: Connection, *, actor: str, action: str, tenant: str, detail: object
) -> None:
    """Write it down, unless this transaction has changed nothing, or has said so itself."""
    await execute(
        connection,
        "operator_note",
        {
            "actor": actor,
            "action": action,
            "tenant": tenant,
            "detail": msgspec.json.encode(detail).decode(),
        },
    )


async def list_tenants(connection: Connection, *, tenant: str | None) -> list[Tenant]:
    """Return the tenants that were set up."""
    rows = await fetch(connection, TenantRow, "tenant_list", {"tenant": tenant})
    return [row.tenant() for row in rows]


async def put_tenant(connection: Connection, tenant: str, parts: TenantParts) -> Tenant:
    """Set up a tenant, or change it, whole."""
    parameters = msgspec.structs.asdict(parts) | {
        "tenant": tenant,
        "send_windows": msgspec.json.encode(parts.send_windows).decode(),
        "error_rules": msgspec.json.encode(parts.error_rules).decode(),
    }
    stored = await fetch_one(connection, TenantRow, "tenant_put", parameters)
    assert stored is not None
    return stored.tenant()


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
    if is_stored(latest, parts):
        assert latest is not None
        return latest, False
    parameters = msgspec.structs.asdict(key) | msgspec.structs.asdict(parts) | {"actor": actor}
    stored = await fetch_one(connection, TemplateRow, "template_put", parameters)
    assert stored is not None
    return stored, True


async def recent_payloads(
    connection: Connection, key: TemplateKey, *, limit: int
) -> list[Payload]:
    """Return the newest payloads that a version must be able to render, the newest first.

    They are the newest `limit` of all locales, and the newest `limit` of its own.
    """
    parameters = {
        "tenant": key.tenant,
        "code": key.code,
        "channel": key.channel,
        "locale": key.locale,
        "limit": limit,
    }
    return await fetch(connection, Payload, "template_payloads", parameters, prepare=False)


def is_stored(row: TemplateRow | None, parts: TemplateParts) -> bool:
    """Tell whether the newest version, if there is one in use, says just this."""
    if row is None or row.deleted_at is not None:
        return False
    schema = msgspec.json.decode(parts.schema) if parts.schema is not None else None
    kept = msgspec.json.decode(row.schema) if row.schema is not None else None
    return (
        row.subject,
        row.body_text,
        row.body_html,
        kept,
        row.keep_content,
        row.on_ambiguous,
    ) == (
        parts.subject,
        parts.text,
        parts.html,
        schema,
        parts.keep_content,
        parts.on_ambiguous,
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

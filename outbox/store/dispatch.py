"""What a dispatcher looks up before it delivers: recipients, templates, installed handlers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import time
from uuid import UUID

import msgspec

from outbox.lifecycle import Ambiguity
from outbox.store.engine import Connection
from outbox_sql import query


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a job is for: its own address, or a user of the tenant's directory."""

    id: int
    tenant_id: str
    user_id: str | None
    channel: str
    address: str | None
    category: str | None
    again: bool


class Found(msgspec.Struct, frozen=True):
    """What the directory says. `template_version`: the one that an earlier attempt used.

    `quiet_from`, `quiet_to`: on the recipient's own clock. `devices_json`: where push goes.
    """

    n: int
    known: bool
    address: str | None
    locale: str | None
    timezone: str | None
    tenant_locale: str | None
    user_json: str
    opted_out: bool
    suppressed: str | None
    template_version: int | None
    quiet_from: time | None
    quiet_to: time | None
    devices_json: str | None


class TemplateRow(msgspec.Struct, frozen=True):
    """One version of a template in one locale; `newest` is the one that new jobs get."""

    locale: str
    version: int
    subject: str | None
    text: str | None
    html: str | None
    schema_json: str | None
    keep_content: str
    on_ambiguous: Ambiguity
    newest: bool


async def find_recipients(connection: Connection, wanted: Sequence[Wanted]) -> list[Found]:
    """Return one answer for each of `wanted`, in its order. One statement."""
    cursor = await connection.execute(
        query("dispatch_recipients"),
        {
            "ns": list(range(len(wanted))),
            "ids": [w.id for w in wanted],
            "tenants": [w.tenant_id for w in wanted],
            "users": [w.user_id for w in wanted],
            "channels": [w.channel for w in wanted],
            "addresses": [w.address for w in wanted],
            "categories": [w.category for w in wanted],
            "again": [w.again for w in wanted],
        },
        prepare=True,
    )
    rows = [Found(*row) for row in await cursor.fetchall()]  # type: ignore[arg-type]
    return sorted(rows, key=lambda found: found.n)


class TenantRow(msgspec.Struct, frozen=True):
    """A tenant's own settings, send windows, error rules and providers in order, as JSON."""

    tenant_id: str
    timezone: str | None
    sender: str | None
    phone_region: str | None
    own_providers: bool
    send_windows_json: str | None
    error_rules_json: str | None
    providers_json: str


class ProviderRow(msgspec.Struct, frozen=True, kw_only=True):
    """A provider that is in use, its credentials sealed. `updated_at` tells one version of it."""

    provider_id: UUID
    channel: str
    kind: str
    name: str
    config: dict[str, str]
    credentials: str | None
    key_id: str | None
    updated_at: str
    wants_receipts: bool = False


async def find_tenants(connection: Connection, tenants: Sequence[str]) -> list[TenantRow]:
    """Return what is set up for these tenants; each has a row, set up or not."""
    cursor = await connection.execute(
        query("dispatch_tenants"), {"tenants": list(tenants)}, prepare=True
    )
    return [TenantRow(*row) for row in await cursor.fetchall()]  # type: ignore[arg-type]


class EndpointRow(msgspec.Struct, frozen=True):
    """A webhook endpoint, its secrets sealed."""

    endpoint_id: UUID
    tenant_id: str
    url: str
    secrets: bytes
    key_id: str
    enabled: bool


async def find_endpoints(connection: Connection, endpoints: Sequence[str]) -> list[EndpointRow]:
    """Return those of these endpoints that there are."""
    cursor = await connection.execute(
        query("dispatch_endpoints"), {"endpoints": list(endpoints)}, prepare=True
    )
    return [EndpointRow(*row) for row in await cursor.fetchall()]  # type: ignore[arg-type]


async def find_templates(
    connection: Connection, *, tenant_id: str, code: str, channel: str
) -> list[TemplateRow]:
    """Return the versions of a template in all its locales, newest first in each."""
    cursor = await connection.execute(
        query("dispatch_template"),
        {"tenant_id": tenant_id, "code": code, "channel": channel},
        prepare=True,
    )
    return [TemplateRow(*row) for row in await cursor.fetchall()]  # type: ignore[arg-type]


async def register_handlers(
    connection: Connection, *, channels: Sequence[str], queues: Sequence[str]
) -> None:
    """Tell the store what can be delivered by this process, so that producers may enqueue it."""
    await connection.execute(
        "insert into outbox.handler (kind, name)"
        " select 'channel', unnest(%s::text[]) union all select 'queue', unnest(%s::text[])"
        " on conflict (kind, name) do update set seen_at = excluded.seen_at"
        " where outbox.handler.seen_at < clock_timestamp() - interval '1 hour'",
        (list(channels), list(queues)),
    )

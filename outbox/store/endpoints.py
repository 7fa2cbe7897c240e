"""Webhook endpoints: where a tenant's webhooks go, and the secrets that sign them.

An endpoint has one secret, and after a rotation for some time its predecessors too: each webhook
is signed with all that are in force, so that the receiver can change over when it likes.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from outbox.errors import SealBroken
from outbox.sealing import Keyring, Sealed
from outbox.store.pool import Connection, execute, fetch, fetch_own
from outbox_sql import query

SECRETS_MAX = 4
SECRET_BYTES = 24
NO_ENDPOINT = UUID(int=0)


class EndpointSecret(msgspec.Struct, frozen=True, omit_defaults=True):
    """One secret; `until` None is the newest, which has no end."""

    secret: str
    until: datetime | None = None


class EndpointParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a PUT brings. `secrets` None: those that are stored stay."""

    url: str
    description: str | None
    event_types: list[str]
    enabled: bool
    secrets: Sequence[EndpointSecret] | None


class StoredEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as it is stored, its secrets sealed."""

    endpoint_id: UUID
    tenant_id: str
    url: str
    description: str | None
    event_types: list[str]
    secrets: bytes
    key_id: str
    enabled: bool
    disabled_reason: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def sealed(self) -> Sealed:
        """The secrets, as a keyring opens them."""
        return Sealed(self.key_id, self.secrets)


def new_secret() -> str:
    """Return a new secret, as Standard Webhooks write it."""
    return "whsec_" + b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def secrets_in_force(
    kept: Sequence[EndpointSecret], now: datetime | None = None
) -> tuple[str, ...]:
    """Return the secrets to sign with, the newest first."""
    now = now or datetime.now(UTC)
    return tuple(each.secret for each in kept if each.until is None or each.until > now)


def rotated(
    kept: Sequence[EndpointSecret], secret: str, *, until: datetime
) -> list[EndpointSecret]:
    """Return the secrets after a rotation: the new one, and what was in force until `until`."""
    now = datetime.now(UTC)
    before = [
        EndpointSecret(each.secret, until if each.until is None else min(each.until, until))
        for each in kept
        if each.secret != secret and (each.until is None or each.until > now)
    ]
    return [EndpointSecret(secret), *before][:SECRETS_MAX]


def open_secrets(keyring: Keyring, sealed: Sealed, endpoint_id: UUID) -> list[EndpointSecret]:
    """Return an endpoint's secrets. Raises SealBroken."""
    text = keyring.open(sealed, place=_place(endpoint_id))
    return msgspec.json.decode(text, type=list[EndpointSecret])


async def put_endpoint(
    connection: Connection,
    endpoint_id: UUID,
    parts: EndpointParts,
    *,
    tenant: str,
    keyring: Keyring,
) -> StoredEndpoint | None:
    """Store an endpoint; None when the id is another tenant's. Raises SealBroken without a key."""
    text = msgspec.json.encode(parts.secrets or [])
    sealed = keyring.seal(text, place=_place(endpoint_id))
    return await fetch_own(
        connection,
        StoredEndpoint,
        "endpoint_put",
        {
            "endpoint_id": endpoint_id,
            "tenant": tenant,
            "url": parts.url,
            "description": parts.description,
            "event_types": parts.event_types,
            "secrets": sealed.content,
            "key_id": sealed.key_id,
            "keep": parts.secrets is None,
            "enabled": parts.enabled,
        },
    )


async def list_endpoints(
    connection: Connection,
    *,
    tenant: str | None,
    endpoint_id: UUID | None = None,
    event_type: str | None = None,
    after: tuple[str, UUID] = ("", NO_ENDPOINT),
    limit: int = 10_000,
) -> list[StoredEndpoint]:
    """Return up to `limit` endpoints after (tenant, id); with `event_type`, those that get it."""
    return await fetch(
        connection,
        StoredEndpoint,
        "endpoint_list",
        {
            "tenant": tenant,
            "endpoint_id": endpoint_id,
            "event_type": event_type,
            "after_tenant": after[0],
            "after_endpoint": after[1],
            "limit": limit,
        },
        prepare=False,
    )


async def delete_endpoint(
    connection: Connection, endpoint_id: UUID, *, tenant: str | None
) -> str | None:
    """Take an endpoint away; return whose it was, None when there is none."""
    parameters = {"endpoint_id": endpoint_id, "tenant": tenant}
    cursor = await connection.execute(query("endpoint_delete"), parameters)
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


async def reseal_endpoints(connection: Connection, keyring: Keyring) -> tuple[int, list[UUID]]:
    """Seal all secrets under the newest key; return how many, and which no key opens."""
    resealed, closed = 0, []
    for row in await list_endpoints(connection, tenant=None, limit=1_000_000):
        if row.key_id == keyring.newest:
            continue
        place = _place(row.endpoint_id)
        try:
            fresh = keyring.seal(keyring.open(row.sealed, place=place), place=place)
        except SealBroken:
            closed.append(row.endpoint_id)
            continue
        resealed += await execute(
            connection,
            "endpoint_reseal",
            {
                "endpoint_id": row.endpoint_id,
                "sealed": fresh.content,
                "key_id": fresh.key_id,
                "was": row.secrets,
            },
        )
    return resealed, closed


def _place(endpoint_id: UUID) -> str:
    return f"endpoint/{endpoint_id}"

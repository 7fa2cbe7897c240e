"""Tenants' providers as the administration sees them: stored, listed, sealed anew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from outbox.errors import SealBroken
from outbox.receipts import Keyword, Receipt
from outbox.sealing import Keyring, Sealed
from outbox.store.pool import Connection, execute, fetch, fetch_one, fetch_own
from outbox_sql import query


class ProviderParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a PUT brings. `credentials` None: those that are stored stay."""

    channel: str
    kind: str
    name: str
    preference: int
    config: Mapping[str, str]
    credentials: Mapping[str, str] | None
    enabled: bool
    receipts: str | None = None


class StoredProvider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider as it is stored. `config` is JSON text, `credentials` are sealed."""

    provider_id: UUID
    tenant_id: str
    channel: str
    kind: str
    name: str
    preference: int
    config: str
    credentials: bytes | None
    key_id: str | None
    enabled: bool
    receipts: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def sealed(self) -> Sealed | None:
        """The credentials, as a keyring opens them."""
        if self.credentials is None or self.key_id is None:
            return None
        return Sealed(self.key_id, self.credentials)


def place_of(provider_id: UUID) -> str:
    """Return the place that a provider's credentials are sealed for."""
    return f"provider/{provider_id}"


def open_credentials(keyring: Keyring, sealed: Sealed | None, provider_id: UUID) -> dict[str, str]:
    """Return a provider's credentials. Raises SealBroken."""
    if sealed is None:
        return {}
    text = keyring.open(sealed, place=place_of(provider_id))
    return msgspec.json.decode(text, type=dict[str, str])


async def put_provider(
    connection: Connection,
    provider_id: UUID,
    parts: ProviderParts,
    *,
    tenant: str,
    keyring: Keyring,
) -> StoredProvider | None:
    """Store a provider; None when the id is another tenant's. Raises SealBroken without a key."""
    sealed = None
    if parts.credentials:
        text = msgspec.json.encode(parts.credentials)
        sealed = keyring.seal(text, place=place_of(provider_id))
    return await fetch_own(
        connection,
        StoredProvider,
        "provider_put",
        {
            "provider_id": provider_id,
            "tenant": tenant,
            "channel": parts.channel,
            "kind": parts.kind,
            "name": parts.name,
            "preference": parts.preference,
            "config": msgspec.json.encode(parts.config).decode(),
            "credentials": sealed.content if sealed else None,
            "key_id": sealed.key_id if sealed else None,
            "keep": parts.credentials is None,
            "enabled": parts.enabled,
            "receipts": parts.receipts,
        },
    )


async def list_providers(
    connection: Connection,
    *,
    tenant: str | None,
    channel: str | None = None,
    provider_id: UUID | None = None,
) -> list[StoredProvider]:
    """Return providers in the order in which they are asked."""
    parameters = {"tenant": tenant, "channel": channel, "provider_id": provider_id}
    return await fetch(connection, StoredProvider, "provider_list", parameters, prepare=False)


async def delete_provider(
    connection: Connection, provider_id: UUID, *, tenant: str | None
) -> str | None:
    """Take a provider away; return whose it was, None when there is none."""
    parameters = {"provider_id": provider_id, "tenant": tenant}
    cursor = await connection.execute(query("provider_delete"), parameters)
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


class Taken(msgspec.Struct, frozen=True):
    """What became of a callback's events: of jobs that there are, and new."""

    known: int
    stored: int


async def take_receipts(
    connection: Connection, provider: StoredProvider, events: Sequence[Receipt]
) -> Taken:
    """Store what a provider told; the same again changes nothing."""
    parameters = {
        "tenant": provider.tenant_id,
        "provider_id": provider.provider_id,
        "provider": f"{provider.kind}:{provider.name}",
        "events": msgspec.json.encode(events).decode(),
    }
    taken = await fetch_one(connection, Taken, "receipts_take", parameters)
    assert taken is not None
    return taken


async def take_keyword(connection: Connection, provider: StoredProvider, said: Keyword) -> bool:
    """Suppress who said STOP, let who said START receive again; tell whether that changed it."""
    parameters = {
        "tenant": provider.tenant_id,
        "channel": provider.channel,
        "address": said.address,
    }
    query = "suppression_start" if said.wants else "suppression_stop"
    return await execute(connection, query, parameters) > 0


async def reseal_providers(connection: Connection, keyring: Keyring) -> tuple[int, list[UUID]]:
    """Seal all credentials under the newest key.

    Returns how many were under another one, and which no key opens. Dispatchers go on with what
    they have: opened, it is the same.
    """
    resealed, closed = 0, []
    for row in await list_providers(connection, tenant=None):
        if row.sealed is None or row.key_id == keyring.newest:
            continue
        place = place_of(row.provider_id)
        try:
            fresh = keyring.seal(keyring.open(row.sealed, place=place), place=place)
        except SealBroken:
            closed.append(row.provider_id)
            continue
        resealed += await execute(
            connection,
            "provider_reseal",
            {
                "provider_id": row.provider_id,
                "sealed": fresh.content,
                "key_id": fresh.key_id,
                "was": row.credentials,
            },
        )
    return resealed, closed

"""Where recipients are reached by push: FCM tokens and Web Push subscriptions."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from outbox.store.pool import Connection, execute, fetch
from outbox_sql import query

KEPT_MAX = 20
"""Of one user on one channel; the one that was seen longest ago goes."""


class DeviceParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a registration brings. `p256dh` and `auth` (base64url) are a subscription's."""

    channel: Literal["push", "browser"]
    address: str
    p256dh: str | None = None
    auth: str | None = None


class DeviceRow(msgspec.Struct, frozen=True):
    """A device as the directory has it."""

    device_id: UUID
    channel: Literal["push", "browser"]
    address: str
    created_at: datetime
    seen_at: datetime


async def put_device(
    connection: Connection, tenant: str, user_id: str, parts: DeviceParts
) -> tuple[DeviceRow, bool]:
    """Register a device, or take it over from whoever had it; True when it is a new one."""
    parameters = msgspec.structs.asdict(parts) | {
        "tenant": tenant,
        "user_id": user_id,
        "keep": KEPT_MAX,
    }
    cursor = await connection.execute(query("device_put"), parameters)
    row = await cursor.fetchone()
    assert row is not None
    *fields, created = row
    return DeviceRow(*fields), bool(created)


async def list_devices(connection: Connection, tenant: str, user_id: str) -> list[DeviceRow]:
    """Return a user's devices, the one that was seen last first."""
    parameters = {"tenant": tenant, "user_id": user_id}
    return await fetch(connection, DeviceRow, "device_list", parameters)


async def delete_device(
    connection: Connection, tenant: str, user_id: str, device_id: UUID
) -> bool:
    """Forget a device; False when there was none."""
    parameters = {"tenant": tenant, "user_id": user_id, "device_id": device_id}
    return await execute(connection, "device_delete", parameters) > 0

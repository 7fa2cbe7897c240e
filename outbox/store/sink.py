"""What was caught instead of sent. `tenant` None means all tenants."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

import msgspec

from outbox.store.catalog import note_action
from outbox.store.pool import EVERY_TENANT, Connection, execute, fetch


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


async def sink(
    connection: Connection, wanted: SinkFilter, *, before: int | None, limit: int
) -> list[SinkRow]:
    """Return up to `limit` caught messages numbered below `before`, newest first."""
    parameters = msgspec.structs.asdict(wanted) | {"before": before, "limit": limit}
    parameters["tenant"] = parameters.pop("tenant_id")
    return await fetch(connection, SinkRow, "sink_list", parameters, prepare=False)


async def put(
    connection: Connection,
    *,
    tenant: str,
    channel: str,
    recipient: str,
    subject: str | None,
    body: str,
    headers: Mapping[str, str],
) -> None:
    """Put a message into the sink, as the provider `sink` does with what it is given."""
    await execute(
        connection,
        "sink_put",
        {
            "tenant": tenant,
            "caught_by": "sink",
            "channel": channel,
            "job_id": None,
            "recipient": recipient,
            "subject": subject,
            "body": body,
            "headers": msgspec.json.encode(headers).decode(),
        },
    )


async def clear_sink(connection: Connection, *, tenant: str | None, actor: str) -> int:
    """Empty the sink, and write down who did; return how many messages it held."""
    held = await execute(connection, "sink_clear", {"tenant": tenant})
    if held:
        await note_action(
            connection,
            actor=actor,
            action="sink.clear",
            tenant=tenant or EVERY_TENANT,
            detail={"before": {"messages": held}, "after": {"messages": 0}},
        )
    return held

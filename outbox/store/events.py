"""Events and the rules that make jobs of them (contracts.md 5)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from outbox.store.pool import Connection, execute, fetch, fetch_one, fetch_own


class RuleParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule says. `condition` is JSON text; delays are in seconds from the acceptance."""

    name: str
    event_type: str
    condition: str | None
    template_code: str
    channels: list[str]
    delay_s: int
    expires_after_s: int | None
    priority: str
    enabled: bool


class RuleRow(RuleParts, frozen=True, kw_only=True):
    """A stored rule."""

    rule_id: UUID
    tenant_id: str
    created_at: datetime
    updated_at: datetime


class PutRule(RuleRow, frozen=True, kw_only=True):
    """A rule that was just stored; whether it is a new one."""

    created: bool


class EventParts(msgspec.Struct, frozen=True, kw_only=True):
    """An event. `data` is JSON text; `content` is the whole event's, which its hash is over."""

    event_id: UUID
    event_type: str
    user_id: str | None
    data: str
    occurred_at: datetime
    content: str


class KnownEvent(msgspec.Struct, frozen=True):
    """An event that was accepted before."""

    same: bool
    jobs: list[str]
    accepted_at: datetime


class _Accepted(msgspec.Struct, frozen=True):
    accepted_at: datetime


async def put_rule(
    connection: Connection, rule_id: UUID, parts: RuleParts, *, tenant: str
) -> PutRule | None:
    """Make a rule, or replace it; None when another tenant has that id."""
    parameters = msgspec.structs.asdict(parts) | {"rule_id": rule_id, "tenant": tenant}
    return await fetch_own(connection, PutRule, "rule_put", parameters)


async def list_rules(
    connection: Connection,
    *,
    tenant: str | None,
    event_type: str | None = None,
    rule_id: UUID | None = None,
) -> list[RuleRow]:
    """Return rules by name, at most a thousand."""
    parameters = {"tenant": tenant, "event_type": event_type, "rule_id": rule_id}
    return await fetch(connection, RuleRow, "rule_list", parameters, prepare=False)


async def delete_rule(connection: Connection, rule_id: UUID, *, tenant: str | None) -> bool:
    """Delete a rule; False when there is none."""
    return await execute(connection, "rule_delete", {"rule_id": rule_id, "tenant": tenant}) > 0


async def put_event(
    connection: Connection, event: EventParts, *, tenant: str
) -> datetime | KnownEvent:
    """Store an event and return when; or what its id stands for already."""
    parameters = msgspec.structs.asdict(event) | {"tenant": tenant}
    while True:
        stored = await fetch_one(connection, _Accepted, "event_put", parameters)
        if stored is not None:
            return stored.accepted_at
        known = await fetch_one(connection, KnownEvent, "event_known", parameters)
        if known is not None:
            return known


async def note_jobs(
    connection: Connection, event_id: UUID, job_ids: Sequence[str], *, tenant: str
) -> None:
    """Note which jobs an event has made."""
    parameters = {"event_id": event_id, "tenant": tenant, "job_ids": list(job_ids)}
    await execute(connection, "event_jobs", parameters)

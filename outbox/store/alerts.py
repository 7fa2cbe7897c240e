"""Alerts: rounds over the whole store, made by whoever comes first; and looking at them."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID, uuid5

import msgspec

from outbox import alerts
from outbox.alerts import RULES, QueueLook
from outbox.store.pool import Connection, execute, fetch, fetch_one
from outbox.store.queues import QueueRow, StoreGauges
from outbox_sql import query

NAMESPACE = UUID("0d1c2f0e-7a55-5a35-9c0a-6d1b6c1f4e21")
"""Of the UUIDv5 that is the job of one alert's opening or closing."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that is open, or was."""

    alert_id: int
    rule: str
    subject: str
    severity: str
    state: str
    value: float
    since: datetime
    opened_at: datetime | None
    closed_at: datetime | None
    acknowledged_at: datetime | None
    acknowledged_by: str | None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that has just opened or closed, and the job that tells a webhook of it."""

    alert: Alert
    job_id: UUID
    event_type: str
    data_json: bytes


class _Live(msgspec.Struct, frozen=True, kw_only=True):
    alert_id: int
    rule: str
    subject: str
    state: alerts.State
    streak: int


class _Round(msgspec.Struct, frozen=True, kw_only=True):
    """A round that is ours: see alert_round.sql. All but `outlived` is JSON."""

    dead_letters: str
    new_codes: str
    live: str
    outlived: bool


async def is_due(connection: Connection) -> bool:
    """Tell whether nobody has made a round lately."""
    cursor = await connection.execute(query("alert_due"))
    row = await cursor.fetchone()
    return row is not None and bool(row[0])


async def make_round(
    connection: Connection,
    queues: list[QueueRow],
    store: StoreGauges,
    *,
    every_s: float = alerts.ROUND_S,
    webhook_url: str | None = None,
) -> list[Told]:
    """Make a round, in one transaction of the caller's, unless somebody else has.

    Return what has opened or closed. With `webhook_url` each is a job to it as well.
    """
    parameters = {"every_s": every_s, "new_s": alerts.NEW_CODE_S}
    taken = await fetch_one(connection, _Round, "alert_round", parameters)
    if taken is None:
        return []
    found = alerts.holding(
        queues=[_look(row) for row in queues],
        dispatchers=store.dispatchers,
        snapshot_age_s=store.snapshot_age_s,
        held=msgspec.json.decode(store.held, type=list[tuple[str, str, str]]),
        dead_letters=msgspec.json.decode(taken.dead_letters, type=dict[str, int]),
        new_codes=msgspec.json.decode(taken.new_codes, type=list[str]),
    )
    changed = await _apply(connection, found, taken)
    told = [_told(alert) for alert in changed]
    if webhook_url is not None:
        for one in told:
            await connection.execute(query("alert_tell"), {"job": _job(one, webhook_url)})
    return told


async def _apply(connection: Connection, found: alerts.Holding, taken: _Round) -> list[Alert]:
    """Bring the alerts on by one round; return those that have opened or closed."""
    rows = msgspec.json.decode(taken.live, type=list[_Live])
    live = {(row.rule, row.subject): row for row in rows}
    changed: list[Alert] = []
    dropped: list[int] = []
    for key in {**live, **found}:
        before = live.get(key)
        rule = RULES.get(key[0])
        if rule is None:  # of another version: it closes
            rule = alerts.NEW_ERROR_CODE
        old = None if before is None else before.state
        streak = 0 if before is None else before.streak
        state, streak = alerts.step(rule, old, streak, holds=key in found)
        if state is None:
            if before is not None:
                dropped.append(before.alert_id)
            continue
        fields: dict[str, object] = {"state": state, "streak": streak, "value": found.get(key)}
        if before is None:
            fields |= {"rule": key[0], "subject": key[1], "severity": rule.severity}
            stored = await fetch_one(connection, Alert, "alert_put", fields)
        else:
            fields["alert_id"] = before.alert_id
            stored = await fetch_one(connection, Alert, "alert_move", fields)
        assert stored is not None
        if state != old and state != "pending":
            changed.append(stored)
    if dropped or taken.outlived:
        await execute(connection, "alert_drop", {"ids": dropped})
    return changed


async def list_alerts(
    connection: Connection, *, open_only: bool = True, limit: int = 100
) -> list[Alert]:
    """Return alerts, the open ones first; `open_only` leaves those out that are over."""
    return await fetch(connection, Alert, "alert_list", {"open_only": open_only, "limit": limit})


async def acknowledge(connection: Connection, alert_id: int, *, actor: str) -> Alert | None:
    """Note that somebody looks after an alert; None where no such one is open."""
    return await fetch_one(
        connection, Alert, "alert_acknowledge", {"alert_id": alert_id, "actor": actor}
    )


def _look(row: QueueRow) -> QueueLook:
    return QueueLook(
        queue=row.queue,
        paused=row.paused,
        waiting=row.waiting,
        oldest_waiting_s=row.oldest_waiting_s or 0.0,
        completed=row.completed,
        failed=row.failed,
    )


def _told(alert: Alert) -> Told:
    event_type = "alert.opened" if alert.state == "open" else "alert.closed"
    rule = RULES.get(alert.rule)
    data = msgspec.structs.asdict(alert) | {
        "summary": "" if rule is None else rule.summary,
        "unit": "" if rule is None else rule.unit,
    }
    return Told(
        alert=alert,
        job_id=uuid5(NAMESPACE, f"{alert.alert_id}:{event_type}"),
        event_type=event_type,
        data_json=msgspec.json.encode(data),
    )


def _job(told: Told, url: str) -> str:
    job = {
        "job_id": told.job_id,
        "channel": "webhook",
        "to": url,
        "data": msgspec.Raw(told.data_json),
        "meta": {"event_type": told.event_type, "priority": "urgent"},
    }
    return msgspec.json.encode(job).decode()

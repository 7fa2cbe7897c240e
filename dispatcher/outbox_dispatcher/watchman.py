"""Rounds of alerts by dispatchers, where no API has made one: see outbox.alerts.

Heartbeats tell whether one may be due. The round itself looks at all queues, so it has a
connection of its own for that moment, and nothing else waits for it; one that took long puts the
next one off: rounds take a twentieth of the time at most. Nothing here can end a session: what
fails is logged.
"""

from __future__ import annotations

import asyncio
import random
from time import monotonic

import psycopg
import structlog

from outbox import alerts
from outbox.store import alerts as store
from outbox.store import queues
from outbox.store.engine import Connection
from outbox_dispatcher.life import Life
from outbox_dispatcher.links import open_link

ROUND_MS_MAX = 30_000
COST_FACTOR = 20.0

log = structlog.get_logger(__name__)


async def watch(
    side: Connection, side_lock: asyncio.Lock, *, life: Life, url: str, webhook_url: str | None
) -> None:
    """Make rounds until cancelled."""
    while True:
        await asyncio.sleep(alerts.ROUND_S * random.uniform(1.0, 1.2))
        if not life.alerts_due:
            continue
        # Somebody may have made it since the heartbeat.
        async with side_lock:
            due = await store.is_due(side)
        if due:
            try:
                await make_round(url, webhook_url)
            except psycopg.Error as error:
                log.warning("the alerts cannot be looked at", error=type(error).__name__)


async def make_round(url: str, webhook_url: str | None) -> None:
    """Make one round: by estimates, where counting takes too long under an old snapshot."""
    began_s = monotonic()
    try:
        await _try_round(url, webhook_url, began_s, walk=True)
    except psycopg.errors.QueryCanceled:
        await _try_round(url, webhook_url, began_s, walk=False)


async def _try_round(url: str, webhook_url: str | None, began_s: float, *, walk: bool) -> None:
    limit_ms = queues.LOOK_MS_MAX if walk else ROUND_MS_MAX
    async with (
        open_link(url, "keep", statement_timeout=str(limit_ms)) as connection,
        connection.transaction(),
    ):
        rows = await queues.look(connection, tenant=None, walk=walk)
        gauges = await queues.gauges(connection)
        every_s = max(alerts.ROUND_S, COST_FACTOR * (monotonic() - began_s))
        for told in await store.make_round(
            connection, rows, gauges, every_s=every_s, webhook_url=webhook_url
        ):
            log.warning(
                told.event_type.replace(".", " "), rule=told.alert.rule, subject=told.alert.subject
            )

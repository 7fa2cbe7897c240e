"""Rounds of alerts by dispatchers, where no API has made one: see outbox.alerts.

Heartbeats tell whether one may be due. The round itself counts what waits, so it has a
connection of its own for that moment, and nothing else waits for it. Nothing here can end a
session: what fails is logged.
"""

from __future__ import annotations

import asyncio
import random

import psycopg
import structlog

from outbox import alerts
from outbox.store import alerts as store
from outbox.store import queues
from outbox.store.engine import Connection
from outbox_dispatcher.life import Life
from outbox_dispatcher.links import open_link

ROUND_MS_MAX = 30_000

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
    """Make one round."""
    async with (
        open_link(url, "keep", statement_timeout=str(ROUND_MS_MAX)) as connection,
        connection.transaction(),
    ):
        rows = await queues.stats(connection, tenant=None)
        gauges = await queues.gauges(connection)
        for told in await store.make_round(connection, rows, gauges, webhook_url=webhook_url):
            log.warning(
                told.event_type.replace(".", " "), rule=told.alert.rule, subject=told.alert.subject
            )

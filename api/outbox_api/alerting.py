"""Rounds of alerts by the API: above all, it alone can see that no dispatcher is left."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import Any

import structlog

from outbox import alerts
from outbox.config import Config
from outbox.errors import StoreUnavailable
from outbox.message import Message
from outbox.outcome import Delivered
from outbox.store import alerts as store
from outbox.store.alerts import Told
from outbox.store.pool import EVERY_TENANT, Database
from outbox_api.gauges import Gauges, Snapshot

TRIES_S = (0.0, 2.0, 10.0)
TIMEOUT_S = 10.0

_log = structlog.get_logger("outbox.api.alerts")


class Alerting:
    """Makes rounds until it is closed."""

    def __init__(self, config: Config, database: Database, gauges: Gauges[Snapshot]) -> None:
        self._config = config
        self._database = database
        self._gauges = gauges
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin; needs the running loop."""
        self._spawn(self._rounds())

    async def close(self) -> None:
        """Make no more rounds."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def make_round(self, *, every_s: float = alerts.ROUND_S) -> list[Told]:
        """Make one round, if it is due."""
        snapshot = await self._gauges.look()
        async with self._database.transaction(EVERY_TENANT) as connection:
            told = await store.make_round(
                connection,
                list(snapshot.queues.values()),
                snapshot.store,
                every_s=every_s,
                webhook_url=self._config.alert_webhook,
            )
        for one in told:
            _log.warning(
                one.event_type.replace(".", " "), rule=one.alert.rule, subject=one.alert.subject
            )
            if one.alert.rule == alerts.NO_DISPATCHER.name and self._config.alert_webhook:
                self._spawn(self._post(one, self._config.alert_webhook))
        return told

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="alerts")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _rounds(self) -> None:
        while True:
            await asyncio.sleep(alerts.ROUND_S * random.Random().uniform(0.5, 0.6))
            try:
                async with self._database.transaction(EVERY_TENANT, read_only=True) as connection:
                    due = await store.is_due(connection)
                if due:
                    await self.make_round()
            except StoreUnavailable:
                pass  # whoever needs the database says so
            except Exception as error:
                _log.error("the alerts cannot be looked at", exc_info=error)

    async def _post(self, told: Told, url: str) -> None:
        """Send what no dispatcher is there to send: under its job's id, as that job will be."""
        try:
            from outbox.channels.webhook import WebhookChannel
        except ImportError:
            _log.warning("the alert waits for a dispatcher: install outbox[dispatcher] here too")
            return
        message = Message(
            key=told.job_id,
            tenant_id="default",
            queue="webhook",
            channel="webhook",
            to=url,
            event_type=told.event_type,
            created_at=told.alert.opened_at or datetime.now(UTC),
            data_json=told.data_json,
        )
        async with WebhookChannel(self._config.handler_settings()) as channel:
            for pause_s in TRIES_S:
                await asyncio.sleep(pause_s)
                outcome = await channel.deliver(message, timeout_s=TIMEOUT_S)
                if isinstance(outcome, Delivered):
                    return
        _log.warning("the alert cannot be posted", code=getattr(outcome, "code", None))

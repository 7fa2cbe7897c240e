"""How deep the queues are, for backpressure, health and metrics: one query, remembered.

A snapshot is made when somebody asks, and the last one is kept while it is younger than twenty
times what it cost: looking never takes more than a twentieth of the time. Whoever only glances
(each POST does) gets one that is some seconds old. Nobody asks, nothing runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import msgspec
import structlog

from outbox.errors import StoreUnavailable
from outbox.store import queues
from outbox.store.pool import EVERY_TENANT, Database
from outbox.store.queues import QueueRow, StoreGauges

FRESH_S = 2.0
COST_FACTOR = 20.0

_log = structlog.get_logger("outbox.api.gauges")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the store looked like at `taken_s` (monotonic)."""

    taken_s: float
    cost_s: float
    queues: Mapping[str, QueueRow]
    store: StoreGauges


class Gauges:
    """The latest snapshot, renewed on demand."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._latest: Snapshot | None = None
        self._next_s = 0.0
        self._renewal: asyncio.Task[Snapshot] | None = None

    def glance(self) -> Snapshot | None:
        """Return the latest snapshot at once, however old, and see to a newer one."""
        if time.monotonic() >= self._next_s:
            self._renew()
        return self._latest

    async def look(self) -> Snapshot:
        """Return a snapshot that is as fresh as its cost allows. Raises StoreUnavailable."""
        latest = self._latest
        if latest is not None and time.monotonic() < latest.taken_s + COST_FACTOR * latest.cost_s:
            return latest
        return await asyncio.shield(self._renew())

    def last_queues(self) -> list[str]:
        """Return the queues of the latest snapshot; none when there is none."""
        return list(self._latest.queues) if self._latest is not None else []

    async def close(self) -> None:
        """Stop looking."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    def _renew(self) -> asyncio.Task[Snapshot]:
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._take(), name="gauges")
            self._renewal.add_done_callback(self._renewed)
        return self._renewal

    def _renewed(self, task: asyncio.Task[Snapshot]) -> None:
        self._renewal = None
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._next_s = time.monotonic() + FRESH_S / 4
            if not isinstance(error, StoreUnavailable):
                _log.error("the gauges cannot be read", exc_info=error)

    async def _take(self) -> Snapshot:
        started_s = time.monotonic()
        async with self._database.transaction(EVERY_TENANT, read_only=True) as connection:
            rows = await queues.stats(connection, tenant=None)
            store = await queues.gauges(connection)
        taken_s = time.monotonic()
        self._next_s = taken_s + max(FRESH_S, COST_FACTOR * (taken_s - started_s))
        self._latest = Snapshot(
            taken_s=taken_s,
            cost_s=taken_s - started_s,
            queues={row.queue: row for row in rows},
            store=store,
        )
        return self._latest

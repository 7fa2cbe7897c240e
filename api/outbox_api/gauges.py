"""How the store is, for backpressure, health and metrics: one query each, remembered.

    Snapshot         how deep the queues are: backpressure, health, metrics
    AttemptSnapshot  what attempts came to: metrics alone

A snapshot is made when somebody asks, and the last one is kept while it is younger than twenty
times what it cost: looking never takes more than a twentieth of the time. Whoever only glances
(each POST does) gets one that is some seconds old. Nobody asks, nothing runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Generic, TypeVar

import msgspec
import structlog

from outbox.errors import StoreUnavailable
from outbox.store import queues
from outbox.store.pool import EVERY_TENANT, Connection, Database
from outbox.store.queues import AttemptRow, QueueRow, StoreGauges

FRESH_S = 2.0
COST_FACTOR = 20.0

_log = structlog.get_logger("outbox.api.gauges")


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """When (monotonic) the store looked like this, and how long it took to look."""

    taken_s: float = 0.0
    cost_s: float = 0.0


class Snapshot(Looked, frozen=True, kw_only=True):
    """How deep the queues are, and how the store is beside them."""

    queues: Mapping[str, QueueRow]
    store: StoreGauges


class AttemptSnapshot(Looked, frozen=True, kw_only=True):
    """What the attempts of each queue came to."""

    rows: list[AttemptRow]


T = TypeVar("T", bound=Looked)


async def read_queues(connection: Connection) -> Snapshot:
    """Look at the queues."""
    rows = await queues.stats(connection, tenant=None)
    store = await queues.gauges(connection)
    return Snapshot(queues={row.queue: row for row in rows}, store=store)


async def read_attempts(connection: Connection) -> AttemptSnapshot:
    """Look at what was attempted."""
    return AttemptSnapshot(rows=await queues.attempts(connection))


class Gauges(Generic[T]):
    """The latest of what `read` returned, renewed on demand."""

    def __init__(self, database: Database, read: Callable[[Connection], Awaitable[T]]) -> None:
        self._database = database
        self._read = read
        self._latest: T | None = None
        self._next_s = 0.0
        self._renewal: asyncio.Task[T] | None = None

    def glance(self) -> T | None:
        """Return the latest snapshot at once, however old, and see to a newer one."""
        if time.monotonic() >= self._next_s:
            self._renew()
        return self._latest

    async def look(self) -> T:
        """Return a snapshot that is as fresh as its cost allows. Raises StoreUnavailable."""
        latest = self._latest
        if latest is not None and time.monotonic() < latest.taken_s + COST_FACTOR * latest.cost_s:
            return latest
        return await asyncio.shield(self._renew())

    def last(self) -> T | None:
        """Return the latest snapshot, however old, and ask for no other."""
        return self._latest

    async def close(self) -> None:
        """Stop looking."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    def _renew(self) -> asyncio.Task[T]:
        if self._renewal is None:
            self._renewal = asyncio.create_task(self._take(), name="gauges")
            self._renewal.add_done_callback(self._renewed)
        return self._renewal

    def _renewed(self, task: asyncio.Task[T]) -> None:
        self._renewal = None
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self._next_s = time.monotonic() + FRESH_S / 4
            if not isinstance(error, StoreUnavailable):
                _log.error("the gauges cannot be read", exc_info=error)

    async def _take(self) -> T:
        started_s = time.monotonic()
        async with self._database.transaction(EVERY_TENANT, read_only=True) as connection:
            read = await self._read(connection)
        taken_s = time.monotonic()
        cost_s = taken_s - started_s
        self._next_s = taken_s + max(FRESH_S, COST_FACTOR * cost_s)
        self._latest = msgspec.structs.replace(read, taken_s=taken_s, cost_s=cost_s)
        return self._latest

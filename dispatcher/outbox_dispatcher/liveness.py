"""Staying alive, noticing who does not, and taking back what the dead had claimed.

Trust window: others may take an epoch's entries once its heartbeat is older than `lease_s`, or
older than 2.5 s with its advisory lock gone. This process starts nothing once its own last good
heartbeat is 2 s old, so the two never overlap, whatever the clocks of their machines say. What
was in flight then may be delivered twice; its outcome is fenced.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from time import monotonic

import structlog

from outbox.message import Epoch, Lease
from outbox.store import engine
from outbox.store.engine import Connection
from outbox.store.pool import answered_within
from outbox_dispatcher.gates import Gates
from outbox_dispatcher.lanes import LaneBook
from outbox_dispatcher.life import Life
from outbox_dispatcher.wakeup import Wakeup

ANSWER_S_MAX = 5.0
"""A heartbeat without an answer for so long ends the session: the server hangs, or is cut off."""

log = structlog.get_logger(__name__)


class Fenced(Exception):
    """Others have declared this epoch dead."""


class Liveness:
    """Heartbeats, lanes that changed, rescue."""

    def __init__(
        self,
        *,
        life: Life,
        lanes: LaneBook,
        wakeup: Wakeup,
        heartbeat_s: float,
        schema_revision: int,
        on_lanes: Callable[[], None],
        on_outdated: Callable[[int], None],
        gates: Gates,
    ) -> None:
        self._life = life
        self._lanes = lanes
        self._wakeup = wakeup
        self._heartbeat_s = heartbeat_s
        self._schema_revision = schema_revision
        self._on_lanes = on_lanes
        self._on_outdated = on_outdated
        self._gates = gates
        self._control = asyncio.Event()
        self.ready = asyncio.Event()
        self.rescued_total = 0

    def control_changed(self) -> None:
        """Look at the lanes now: somebody waits for a pause to be seen."""
        self._control.set()

    async def run(self, connection: Connection) -> None:
        """Beat until cancelled. Raises Fenced; lets psycopg's OperationalError out."""
        while True:
            self._control.clear()
            await self.beat(connection)
            self.ready.set()
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._control.wait()
            except TimeoutError:
                pass

    async def beat(self, connection: Connection) -> None:
        """Do one heartbeat and what it asks for."""
        self._life.turned()
        sent_at = monotonic()
        with answered_within(ANSWER_S_MAX, connection):
            beat = await engine.heartbeat(
                connection, epoch=self._life.epoch, seen_version=self._lanes.version
            )
        if not beat.alive:
            self._life.fence()
            raise Fenced(f"epoch {self._life.epoch}")
        self._life.beat(sent_at=sent_at, db_now=beat.now)
        if beat.post_revision > self._schema_revision:
            self._on_outdated(beat.post_revision)
        self._life.fleet_size = beat.alive_count
        self._life.gaps = beat.gaps
        self._life.replays = beat.replays
        self._life.next_fire = beat.next_fire
        self._life.alerts_due = beat.alerts_due
        if beat.version != self._lanes.version or beat.newest_lane != self._lanes.newest:
            await self._load_lanes(connection)
        if beat.destinations != self._gates.version:
            await self._gates.load(connection, beat.destinations)
            self._wakeup.nudge()
        if beat.to_rescue:
            await self.rescue(connection, beat.to_rescue)

    async def _load_lanes(self, connection: Connection) -> None:
        version, catalog, lanes = await engine.load_lanes(connection)
        self._lanes.load(version, lanes, catalog=catalog)
        self._on_lanes()
        # From here on nothing starts in a lane that this version pauses: say so at once.
        await engine.acknowledge(connection, epoch=self._life.epoch, seen_version=version)
        self._wakeup.nudge()

    async def rescue(self, connection: Connection, dead: list[Epoch]) -> None:
        """Take back what dead epochs, and attempts that outlived their lease, had claimed."""
        while True:
            lanes = await engine.rescue(connection, dead=dead, epoch=self._life.epoch)
            if not lanes:
                break
            self.rescued_total += len(lanes)
            log.warning("rescued entries of dead dispatchers", entries=len(lanes))
            self._lanes.ring(set(lanes))
            self._wakeup.nudge()
            sent_at = monotonic()
            beat = await engine.heartbeat(
                connection, epoch=self._life.epoch, seen_version=self._lanes.version
            )
            if not beat.alive:
                raise Fenced(f"epoch {self._life.epoch}")
            self._life.beat(sent_at=sent_at, db_now=beat.now)
        if dead:
            await engine.mark_rescued(connection, dead)


async def keep_leases(
    connection: Connection,
    *,
    life: Life,
    leases: Callable[[], list[Lease]],
    lease_s: float,
) -> None:
    """Renew the leases of attempts that run for long, until cancelled."""
    while True:
        await asyncio.sleep(lease_s / 3 * random.uniform(0.8, 1.0))
        running = leases()
        if running and not life.fenced:
            await engine.renew(connection, running, epoch=life.epoch, lease_s=lease_s)

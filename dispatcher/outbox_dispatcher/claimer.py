"""Claims: which lanes to ask for how many, and what becomes of the rows that come back."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from time import monotonic

from outbox.message import LaneId
from outbox.store import engine
from outbox.store.engine import Claimed, Connection
from outbox_dispatcher.lanes import LaneBook, LaneState
from outbox_dispatcher.life import Life
from outbox_dispatcher.slots import Item, Slots
from outbox_dispatcher.wakeup import Wakeup


class Claimer:
    """One loop: sleep until there may be work and room for it, claim, hand over."""

    def __init__(
        self,
        *,
        life: Life,
        lanes: LaneBook,
        slots: Mapping[str, Slots],
        wakeup: Wakeup,
        lease_s: float,
        hand_over: Callable[[list[Item]], None],
        suspects_allowed: Callable[[], bool],
    ) -> None:
        self._life = life
        self._lanes = lanes
        self._slots = slots
        self._wakeup = wakeup
        self._lease_s = lease_s
        self._hand_over = hand_over
        self._suspects_allowed = suspects_allowed
        self.claiming = False
        self.nothing_due = asyncio.Event()

    async def run(self, connection: Connection) -> None:
        """Claim until cancelled. Lets psycopg's OperationalError out."""
        while True:
            rung = self._wakeup.rung()
            if rung is None or rung:
                self._lanes.ring(rung)
                self.nothing_due.clear()
            if self._wakeup.poll_is_due():
                await self._look_for_due(connection)
            asked = self._deal() if self._life.may_start() else {}
            if not asked:
                await self._wakeup.wait()
                continue
            await self._claim(connection, asked)

    def _deal(self) -> dict[LaneId, tuple[LaneState, int, bool]]:
        """Share each queue's room out over its lanes that may have work, in random turn."""
        by_queue: dict[str, list[LaneState]] = {}
        for state in self._lanes.open_lanes():
            if state.hot and state.lane.queue in self._slots:
                by_queue.setdefault(state.lane.queue, []).append(state)
        asked: dict[LaneId, tuple[LaneState, int, bool]] = {}
        for queue, states in by_queue.items():
            room = self._slots[queue].room
            if room <= 0:
                continue
            random.shuffle(states)
            share = max(1, room // len(states))
            for state in states[:room]:
                limit = 1 if state.probing else share
                asked[state.lane.lane_id] = (state, limit, monotonic() >= state.sweep_at)
        return asked

    async def _claim(
        self, connection: Connection, asked: dict[LaneId, tuple[LaneState, int, bool]]
    ) -> None:
        for state, limit, _ in asked.values():
            self._slots[state.lane.queue].outstanding += limit
        self.claiming = True
        rows: list[Claimed] = []
        began = monotonic()
        try:
            rows = await engine.claim(
                connection,
                [state.ask(limit) for state, limit, _ in asked.values()],
                epoch=self._life.epoch,
                lease_s=self._lease_s,
                suspects=self._suspects_allowed(),
            )
        finally:
            self.claiming = False
            for state, limit, _ in asked.values():
                self._slots[state.lane.queue].outstanding -= limit
        self._lanes.claimed(asked, rows, monotonic() - began)
        if not rows:
            return
        self._wakeup.busy(more=any(state.hot for state, _, _ in asked.values()))
        self.nothing_due.clear()
        lease_ends = began + self._lease_s
        items = []
        for row in rows:
            state = asked[row.lane_id][0]
            slots = self._slots[state.lane.queue]
            slots.outstanding += 1
            items.append(Item(row, slots, lease_ends, probe=state.probing))
            # A probe is one entry: what it shows decides for the rest.
            if state.probing:
                state.probing = False
                state.hot = False
        self._hand_over(items)

    async def _look_for_due(self, connection: Connection) -> None:
        upcoming: list[float] = []
        found = False
        for lane_id, available_at, now in await engine.next_due(connection):
            state = self._lanes.get(lane_id)
            if state is None or not state.open or state.lane.queue not in self._slots:
                continue
            wait_s = (available_at - now).total_seconds()
            if wait_s > 0:
                upcoming.append(wait_s)
            elif not state.hot:
                state.hot = found = True
                state.look_below()
        if found:
            self._wakeup.busy(more=True)
        else:
            self._wakeup.idle(min(upcoming, default=None))
            if not any(s.hot for s in self._lanes.open_lanes() if s.lane.queue in self._slots):
                self.nothing_due.set()

"""Claims: which lanes to ask for how many, and what becomes of the rows that come back.

Fairness, limits, pause and hold are one mechanism: how many a lane is asked for.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from time import monotonic
from typing import TypeAlias

from outbox.message import LaneId
from outbox.store import engine
from outbox.store.engine import Claimed, Connection, Upcoming
from outbox_dispatcher.fair import FairShares, in_turn
from outbox_dispatcher.lanes import LaneBook, LaneState
from outbox_dispatcher.life import Life
from outbox_dispatcher.limits import Limits, Quota
from outbox_dispatcher.slots import Item, Slots
from outbox_dispatcher.wakeup import Reach, Wakeup

Asked: TypeAlias = dict[LaneId, tuple[LaneState, int, bool]]
"""What a claim asks for: of which lane, how many, and whether below its floors, too."""


class Claimer:
    """One loop: sleep until there may be work and room for it, claim, hand over."""

    def __init__(
        self,
        *,
        life: Life,
        lanes: LaneBook,
        limits: Limits,
        slots: Mapping[str, Slots],
        wakeup: Wakeup,
        lease_s: float,
        hand_over: Callable[[list[Item]], None],
        suspects_allowed: Callable[[], bool],
    ) -> None:
        self._life = life
        self._lanes = lanes
        self._limits = limits
        self._shares: dict[str, FairShares] = {}
        self._contended: dict[str, dict[str, list[LaneState]]] = {}
        self._set_aside: list[tuple[Quota, int]] = []
        self._slots = slots
        self._wakeup = wakeup
        self._lease_s = lease_s
        self._hand_over = hand_over
        self._suspects_allowed = suspects_allowed
        self._by_bell = False
        self.claiming = False
        self.nothing_due = asyncio.Event()

    async def run(self, connection: Connection) -> None:
        """Claim until cancelled. Lets psycopg's OperationalError out."""
        while True:
            rung = self._wakeup.rung()
            if rung is None or rung:
                self._lanes.ring(rung)
                self.nothing_due.clear()
                self._by_bell = True
            if due := self._wakeup.due():
                self._lanes.ring(due)
                self.nothing_due.clear()
            if reach := self._wakeup.poll_due():
                await self._look_for_due(connection, reach)
            if not self._life.may_start():
                await self._wakeup.wait()
                continue
            asked = self._deal()
            if self._limits.any and self._limits.next_lease_at() <= monotonic():
                self._take_back()
                await self._limits.lease(connection, self._life.epoch)
                asked = self._deal()
            if not asked:
                await self._wakeup.wait(self._limits.next_lease_at())
                continue
            await self._claim(connection, asked)

    def _deal(self) -> Asked:
        """Share each queue's room out over the tenants that may have work, by weight.

        Pause, hold, places and tokens all are limits to what a lane is asked for.
        """
        self._limits.forget_demand()
        self._contended = {}
        by_queue: dict[str, dict[str, list[LaneState]]] = {}
        for state in self._lanes.open_lanes():
            if state.hot and (queue := state.lane.queue) in self._slots:
                by_queue.setdefault(queue, {}).setdefault(state.lane.tenant_id, []).append(state)
        asked: Asked = {}
        for queue, by_tenant in by_queue.items():
            room = self._slots[queue].room
            if room > 0:
                self._deal_queue(queue, room, by_tenant, asked)
        return asked

    def _deal_queue(
        self, queue: str, room: int, by_tenant: dict[str, list[LaneState]], asked: Asked
    ) -> None:
        wants: dict[str, int] = {}
        weights: dict[str, int] = {}
        for tenant, states in by_tenant.items():
            want = 0.0
            for state in states:
                most = 1 if state.probing else room
                for quota in state.quotas:
                    quota.demand = min(quota.demand + most, room)
                want += min(most, state.cap)
            if want >= 1:
                wants[tenant] = min(int(want), room)
                weights[tenant] = states[0].weight
        if not wants:
            return
        shares = self._shares.setdefault(queue, FairShares()).deal(room, wants, weights)
        for tenant, share in shares.items():
            self._deal_tenant(share, by_tenant[tenant], asked)
        if len(wants) > 1:
            self._contended[queue] = {t: by_tenant[t] for t, want in wants.items() if want >= room}

    def _deal_tenant(self, share: int, states: list[LaneState], asked: Asked) -> None:
        """Share a tenant's part out over its lanes: narrower ones are lanes of their own."""
        random.shuffle(states)
        for place, state in enumerate(states):
            even = -(-share // (len(states) - place))
            limit = int(min(even, state.cap, 1 if state.probing else share))
            if limit <= 0:
                continue
            share -= limit
            for quota in state.quotas:
                quota.take(limit)
                self._set_aside.append((quota, limit))
            asked[state.lane.lane_id] = (state, limit, monotonic() >= state.look_at)

    def _take_back(self) -> None:
        """Give back what was set aside for a claim: it has answered, or is dealt out anew."""
        for quota, count in self._set_aside:
            quota.take(-count)
        self._set_aside.clear()

    async def _claim(self, connection: Connection, asked: Asked) -> None:
        for state, limit, _ in asked.values():
            self._slots[state.lane.queue].outstanding += limit
        self.claiming = True
        rows: list[Claimed] = []
        began = monotonic()
        try:
            rows = await engine.claim(
                connection,
                [state.ask(limit, below=below) for state, limit, below in asked.values()],
                epoch=self._life.epoch,
                lease_s=self._lease_s,
                suspects=self._suspects_allowed(),
            )
        finally:
            self.claiming = False
            for state, limit, _ in asked.values():
                self._slots[state.lane.queue].outstanding -= limit
            self._take_back()
        self._lanes.claimed(asked, rows, monotonic() - began)
        self._charge(rows)
        by_bell, self._by_bell = self._by_bell, False
        if not rows:
            if by_bell:
                self._wakeup.look_soon()
            return
        self._wakeup.busy(more=any(state.hot for state, _, _ in asked.values()))
        self.nothing_due.clear()
        lease_ends = began + self._lease_s
        items = []
        for row in rows:
            state = asked[row.lane_id][0]
            slots = self._slots[state.lane.queue]
            slots.outstanding += 1
            item = Item(row, slots, lease_ends, probe=state.probing)
            if state.quotas:
                item.quotas = state.quotas
                for quota in state.quotas:
                    quota.take(1)
            items.append(item)
            # A probe is one entry: what it shows decides for the rest.
            if state.probing:
                state.probing = False
                state.hot = False
            elif state.window is not None:
                state.in_flight += 1
        # In turn: nobody's job starts behind all those that a larger tenant got in this claim.
        self._hand_over(in_turn(items, _tenant_of) if self._contended else items)

    def _charge(self, rows: list[Claimed]) -> None:
        """Tell the shares that more than one tenant wanted what each of them has got."""
        for queue, wanting in self._contended.items():
            got = Counter(row.tenant_id for row in rows if row.queue == queue)
            waiting = [
                tenant for tenant, states in wanting.items() if any(state.hot for state in states)
            ]
            self._shares[queue].charge(got, waiting)

    async def _look_for_due(self, connection: Connection, reach: Reach) -> None:
        began, db_now = monotonic(), self._life.db_now()
        if reach == "far":
            upcoming = await engine.next_due(connection)
            self._lanes.looked(upcoming, db_now=db_now)
        else:
            upcoming = await self._look_near(connection)
        took_s = monotonic() - began
        due_in_s: dict[LaneId, float] = {}
        for first in upcoming:
            wait_s = (first.available_at - first.now).total_seconds()
            due_in_s[first.lane_id] = min(wait_s, due_in_s.get(first.lane_id, wait_s))
        later: dict[LaneId, float] = {}
        found = False
        for lane_id, wait_s in due_in_s.items():
            state = self._lanes.get(lane_id)
            if state is None or not state.open or state.lane.queue not in self._slots:
                continue
            if wait_s > 0:
                later[lane_id] = wait_s
            elif not state.hot:
                state.hot = found = True
        self._wakeup.polled(reach, took_s, later, fleet_size=self._life.fleet_size)
        if found:
            self._wakeup.busy(more=True)
        else:
            self._wakeup.idle()
            hot = any(s.hot for s in self._lanes.open_lanes() if s.lane.queue in self._slots)
            if reach == "far" and not hot:
                self.nothing_due.set()

    async def _look_near(self, connection: Connection) -> list[Upcoming]:
        asks = self._lanes.quiet_lanes(self._slots)
        if not asks:
            return []
        upcoming = await engine.next_due_near(connection, asks)
        self._lanes.found(upcoming)
        return upcoming


def _tenant_of(item: Item) -> tuple[str, str]:
    return item.claimed.queue, item.claimed.tenant_id

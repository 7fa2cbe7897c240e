"""The lanes as this dispatcher sees them: which to ask, from which floor, and when again."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from datetime import datetime
from math import inf
from time import monotonic

from outbox.message import LaneId
from outbox.store.engine import FLOOR_BOTTOM, Ask, Claimed, Lane, Upcoming, Version
from outbox_dispatcher.floors import Floors, Horizon, Place
from outbox_dispatcher.limits import Limits, Quota
from outbox_dispatcher.pace import Pace

LOOK_S_MIN = 1.0
"""At least so long between two claims of a lane that look below its floors."""
TEST = "test"
"""The scope of the lane where test jobs are."""
DESTINATION = "destination:"
"""A scope that begins so is a lane where what a destination's gate keeps back waits."""


class LaneState:
    """One lane: whether it may have work, and how far claims have got in each priority.

    `quotas` are the limits that a claim of it must keep within. `weight` is its tenant's.
    """

    __slots__ = (
        "failing",
        "floors",
        "hot",
        "in_flight",
        "lane",
        "look_at",
        "pace",
        "probing",
        "quotas",
        "rung",
        "weight",
        "window",
    )

    def __init__(self, lane: Lane, horizon: Horizon) -> None:
        self.lane = lane
        self.weight = lane.weight
        self.quotas: tuple[Quota, ...] = ()
        self.hot = True
        self.rung = False
        self.probing = False
        # How many of it may be between claim and record; None: as many as there are slots.
        self.window: int | None = None
        self.in_flight = 0
        self.failing = False
        self.floors = Floors(horizon)
        self.pace = Pace()
        self.look_at = 0.0

    def ask(self, room: int, *, below: bool) -> Ask:
        """Return the part of a claim for this lane; with `below`, it looks for what came late."""
        self.rung = False
        start = self.floors.starts(below=below).get
        return Ask(
            lane_id=self.lane.lane_id,
            room=room,
            urgent=start(10, FLOOR_BOTTOM),
            high=start(5, FLOOR_BOTTOM),
            normal=start(1, FLOOR_BOTTOM),
            low=start(0, FLOOR_BOTTOM),
        )

    def looked_below(self, took_s: float) -> None:
        """Note that a claim looked below the floors and took so long."""
        self.pace.took(took_s)
        self.look_at = max(monotonic() + LOOK_S_MIN, self.pace.may_at)

    def ring(self) -> None:
        """Note that work may have appeared, maybe too late for a claim that is under way."""
        self.hot = self.rung = True

    def look_below(self) -> None:
        """Look below the floors as soon as that is affordable: something may have appeared there.

        What is committed right now lies above them, and is found in any case.
        """
        self.look_at = self.pace.may_at

    def start_slowly(self) -> None:
        """Begin with one at a time: each that goes well makes room for one more."""
        self.window, self.in_flight = 1, 0

    def went_well(self, concurrency: int) -> None:
        """Widen the window by one; a lane that fills all slots needs none."""
        self.failing = False
        if self.window is not None:
            self.window += 1
            if self.window > concurrency:
                self.window = None

    def went_wrong(self, concurrency: int) -> None:
        """Halve what this lane may have in flight, at first to a quarter of the slots."""
        self.failing = True
        if self.window is None:
            self.window = max(1, concurrency // 4)
        else:
            self.window = max(1, self.window // 2)

    def begin_probe(self) -> None:
        """Let claims ask this held lane for one entry."""
        self.probing = self.hot = True
        self.window = None
        self.floors.forget()

    @property
    def cap(self) -> float:
        """How many a claim may take by the limits; infinite where there are none."""
        window = inf if self.window is None else max(0, self.window - self.in_flight)
        return min(window, min((quota.room for quota in self.quotas), default=inf))

    @property
    def open(self) -> bool:
        """Whether claims and starts are allowed."""
        return not self.lane.paused and (not self.lane.held or self.probing)


class LaneBook:
    """All lanes of the queues that are handled here."""

    def __init__(self, queues: Iterable[str] | None, limits: Limits | None = None) -> None:
        self._queues = None if queues is None else frozenset(queues)
        self._limits = limits or Limits()
        self._states: dict[LaneId, LaneState] = {}
        self._scopes: dict[tuple[str, str, str], LaneState] = {}
        self.version = Version(0)
        self.catalog = 0
        self.newest: int | None = None
        self._highest = 0
        self._horizon = Horizon()
        self._waiting: set[LaneId] = set()
        self.channels: dict[str, str | None] = {}

    def load(self, version: Version, lanes: Iterable[Lane], *, catalog: int = 0) -> None:
        """Take over a fresh picture. What was resumed or unheld is looked at from the bottom.

        `catalog` is the version of tenants, providers and endpoints, kept for whoever asks.
        """
        self.version = version
        self.catalog = catalog
        lanes = list(lanes)
        self._forget({lane.lane_id for lane in lanes})
        self.newest = max((lane.lane_id for lane in lanes), default=None)
        self._highest = max(self._highest, self.newest or 0)
        for lane in lanes:
            if self._queues is not None and lane.queue not in self._queues:
                continue
            state = self._states.get(lane.lane_id)
            if state is None:
                state = LaneState(lane, self._horizon)
                if lane.scope.startswith(DESTINATION):
                    state.start_slowly()
                self._states[lane.lane_id] = state
                self._scopes[lane.tenant_id, lane.queue, lane.scope] = state
                continue
            was_open, was_held, state.lane = state.open, state.lane.held, lane
            if not lane.held:
                state.probing = False
            if was_held and not lane.held:
                state.start_slowly()
            if state.open and not was_open:
                state.ring()
                state.floors.forget()
        self.limits_changed()

    def _forget(self, there: set[int]) -> None:
        """Drop lanes that are there no more: upkeep deletes narrow ones that nothing waits in."""
        for lane_id in self._states.keys() - there:
            lane = self._states.pop(lane_id).lane
            key = (lane.tenant_id, lane.queue, lane.scope)
            if self._scopes[key].lane.lane_id == lane_id:
                del self._scopes[key]

    def limits_changed(self) -> None:
        """Have every lane know its limits: its own, its main lane's, its destination's."""
        for state in self._states.values():
            if not state.lane.scope:
                quota = self._limits.of_lane(state.lane)
                state.quotas = () if quota is None else (quota,)
                state.weight = state.lane.weight
        for state in self._states.values():
            lane = state.lane
            main = self._scopes.get((lane.tenant_id, lane.queue, "")) if lane.scope else None
            if main is None:
                continue
            state.weight, state.quotas = main.weight, main.quotas
            if lane.scope.startswith(DESTINATION):
                quota = self._limits.destinations.get(lane.scope.removeprefix(DESTINATION))
                if quota is not None:
                    state.quotas = (*main.quotas, quota)

    def get(self, lane_id: LaneId) -> LaneState | None:
        """Return a lane's state, or None for a lane that is not handled here."""
        return self._states.get(lane_id)

    def all(self) -> list[LaneState]:
        """Return every lane that is handled here."""
        return list(self._states.values())

    def narrower(self, tenant_id: str, queue: str, scope: str) -> LaneState | None:
        """Return the narrower lane of a scope, or None where there is none (that is known)."""
        return self._scopes.get((tenant_id, queue, scope))

    def own_lane(self, tenant_id: str, queue: str, scope: str) -> LaneState | None:
        """Return the lane where this scope's entries wait now: it is held, or in trouble."""
        state = self._scopes.get((tenant_id, queue, scope))
        return state if state is not None and (state.lane.held or state.failing) else None

    def waits_for_destination(self, lane_id: LaneId) -> bool:
        """Return whether a lane is one where jobs wait for what their destination allows."""
        state = self._states.get(lane_id)
        return state is not None and state.lane.scope.startswith(DESTINATION)

    def left(self, lane_id: LaneId) -> None:
        """Note that an entry of a lane has left this process."""
        state = self._states.get(lane_id)
        if state is not None and state.window is not None:
            state.in_flight = max(0, state.in_flight - 1)
            state.ring()

    def knows(self, lane_id: LaneId) -> bool:
        """Return whether the lane is in the picture at all (also of queues not handled here)."""
        return lane_id <= self._highest

    def open_lanes(self) -> list[LaneState]:
        """Return the lanes that claims may ask."""
        return [state for state in self._states.values() if state.open]

    def held_lanes(self) -> list[LaneState]:
        """Return the lanes that wait for a probe."""
        return [s for s in self._states.values() if s.lane.held and not s.lane.paused]

    def ring(self, lane_ids: Iterable[LaneId] | None) -> None:
        """Note that work may have appeared in these lanes (None: in any)."""
        states = (
            self._states.values()
            if lane_ids is None
            else [s for i in lane_ids if (s := self._states.get(i)) is not None]
        )
        for state in states:
            state.ring()
            state.look_below()

    def ask_again(self, lanes: Iterable[tuple[str, str]]) -> None:
        """Note that these lanes (tenant, queue) have work that became due right now."""
        for tenant_id, queue in lanes:
            for scope in ("", TEST):
                state = self._scopes.get((tenant_id, queue, scope))
                if state is not None:
                    state.ring()

    def claimed(
        self,
        asked: Mapping[LaneId, tuple[LaneState, int, bool]],
        rows: list[Claimed],
        took_s: float,
    ) -> None:
        """Move floors up to what was claimed; lanes that gave less than asked are drained."""
        got: dict[LaneId, int] = {}
        last: dict[LaneId, dict[int, Place]] = {}
        for row in rows:
            got[row.lane_id] = got.get(row.lane_id, 0) + 1
            last.setdefault(row.lane_id, {})[row.priority] = (row.available_at, row.id)
        for lane_id, (state, room, below) in asked.items():
            full = got.get(lane_id, 0) >= room
            state.floors.claimed(last.get(lane_id, {}), full=full)
            if below:
                state.looked_below(took_s)
            if not full:
                state.hot = state.rung
                # Rows that commit later may lie below; an idle lane can look often.
                state.look_below()

    def start_over(self) -> None:
        """Ask all lanes from the bottom: this may be another server, and its clock another one."""
        for state in self._states.values():
            state.ring()
            state.floors.forget()

    def given_back(self, lane_id: LaneId, priority: int, place: Place) -> None:
        """Note that an entry waits at this place again, or in another lane."""
        state = self._states.get(lane_id)
        if state is not None:
            state.floors.lower(priority, place)

    def leave_out(self) -> None:
        """Note that claims leave some entries out from here on."""
        for state in self._states.values():
            state.floors.mark()

    def take_all(self) -> None:
        """Ask again for what claims have left out since `leave_out`."""
        for state in self._states.values():
            state.floors.back_to_mark()
            state.ring()

    def looked(self, upcoming: Iterable[Upcoming], *, db_now: datetime) -> None:
        """Note what a look at everything that waits has found. `db_now`: from before it."""
        first: dict[LaneId, dict[int, Place]] = {}
        for found in upcoming:
            first.setdefault(found.lane_id, {})[found.priority] = (found.available_at, found.id)
        self._horizon.looked(db_now)
        for lane_id in self._waiting | first.keys():
            if state := self._states.get(lane_id):
                state.floors.looked(first.get(lane_id, {}))
        self._waiting = set(first)

    def found(self, upcoming: Iterable[Upcoming]) -> None:
        """Note what a look at some lanes has found: it may lie below their floors."""
        for found in upcoming:
            self.given_back(found.lane_id, found.priority, (found.available_at, found.id))

    def quiet_lanes(self, queues: Container[str]) -> list[Ask]:
        """Return from where to look at lanes of these queues that no claim asks now, but may."""
        return [
            state.ask(1, below=True)
            for state in self.open_lanes()
            if not state.hot and state.lane.queue in queues
        ]

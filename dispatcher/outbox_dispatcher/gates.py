"""Gates before destinations: whom a delivery may talk to now, as the whole fleet knows it.

A destination is a host, a webhook endpoint or a provider. It may have a rate, be paused because
it asked for that (Retry-After), or have an open breaker; all of that stands in Postgres, and every
dispatcher hears of a change at once. What a gate keeps back burns no try: it goes into a lane of
its own (`destination:NAME`), once, and is claimed from there as the gate allows, so that neither
claims nor the tenant's other jobs are troubled by it. Where all is well there is no gate, and
nothing is asked or counted.

What attempts come to is counted from the first failure on, for a minute, and told once a second:
the store opens the breaker, when half of 20 or more have failed over the whole fleet.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from re import compile as compile_pattern
from time import monotonic
from urllib.parse import urlsplit

import structlog

from outbox.backoff import RETRY_AFTER_S_MAX
from outbox.message import LaneId
from outbox.outcome import Outcome, Retryable, Snoozed
from outbox.store import limits as store
from outbox.store.engine import Connection
from outbox.store.limits import Health
from outbox_dispatcher.failover import FailOver
from outbox_dispatcher.lanes import DESTINATION, LaneBook
from outbox_dispatcher.life import Life
from outbox_dispatcher.limits import Limits
from outbox_dispatcher.slots import Item

WINDOW_S = 60
TELL_S = 1.0
TELL_S_MIN = 0.05
TELL_FAILURES = 5
"""So many failures of one destination are told at once: those are the ones that may open it."""
DEFER_S = 1.0
"""What cannot move into the gate's own lane comes back after so long at least."""
NAMES_MAX = 10_000
CLOSED_S_MIN = 1.0
"""A job that found every provider shut waits at least so long."""
LANES_KEPT_MAX = 100_000

_NAME = compile_pattern(r"[!-~]{1,255}")
_PORTS = {"http": 80, "https": 443}
_PASSING = frozenset(
    {"http.404", "handler.error", "dispatcher.error", "dispatcher.stopped", "lease.lost"}
)
"""Codes of trouble that say nothing about how the destination is."""

log = structlog.get_logger(__name__)


class Window:
    """What attempts of the last minute came to, by the second."""

    __slots__ = ("_seconds", "changed", "failed_untold")

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()
        self.changed = False
        self.failed_untold = 0

    def add(self, *, well: bool) -> None:
        """Count one attempt."""
        second = int(monotonic())
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append([second, 0, 0])
        self._seconds[-1][1 if well else 2] += 1
        self.failed_untold += not well
        self.changed = True

    def sums(self) -> tuple[int, int]:
        """Return how many went well, and how many failed."""
        oldest = int(monotonic()) - WINDOW_S
        while self._seconds and self._seconds[0][0] < oldest:
            self._seconds.popleft()
            self.changed = True
        return sum(s[1] for s in self._seconds), sum(s[2] for s in self._seconds)


class Gates:
    """All gates as this dispatcher knows them, and what it has to tell of them."""

    def __init__(
        self,
        *,
        limits: Limits,
        lanes: LaneBook,
        life: Life,
        release: Callable[[Item, float | None, LaneId | None], None],
        on_new_lane: Callable[[], None],
    ) -> None:
        self._limits = limits
        self._lanes = lanes
        self._life = life
        self._release = release
        self._on_new_lane = on_new_lane
        self._lane_ids: dict[tuple[str, str, str], LaneId] = {}
        self._lanes_seen = lanes.version
        self._watched: set[str] = set()
        self._windows: dict[str, Window] = {}
        self._pauses: dict[str, float] = {}
        self._settled: dict[str, bool] = {}
        self._event = asyncio.Event()
        self.held_back_total = 0
        self.version: int | None = None

    @property
    def shut(self) -> int:
        """How many destinations nobody may talk to freely now."""
        now = monotonic()
        return sum(
            quota.closed_until > now or quota.half_open
            for quota in self._limits.destinations.values()
        )

    @property
    def any(self) -> bool:
        """Whether there is a gate at all."""
        return bool(self._limits.destinations)

    # -- before an attempt ------------------------------------------------------------------

    async def admit(self, connection: Connection, item: Item) -> None:
        """Let a prepared item pass, or say where it waits (`divert_to`, `defer_s`)."""
        if item.message is None or item.decided is not None:
            return
        state = self._lanes.get(item.claimed.lane_id)
        for name in destinations_of(item):
            quota = self._limits.destinations.get(name)
            if quota is None or quota in item.quotas:
                continue
            scope = DESTINATION + name
            own = self._lanes.narrower(item.claimed.tenant_id, item.claimed.queue, scope)
            first = own is None or not own.hot
            if first and quota.room >= 1:
                quota.take(1)
                item.quotas = (*item.quotas, quota)
                continue
            self.held_back_total += 1
            if state is None or state.lane.scope:
                # It waits in a narrower lane already: there it stays, or two would play ball.
                item.defer_s = max(DEFER_S, quota.closed_s) * random.uniform(1.0, 1.2)
            else:
                item.divert_to = await self._lane(connection, item, scope)
            return

    def holds_back(self, item: Item) -> bool:
        """Look once more right before the start; what may not start now is given back."""
        now = monotonic()
        for name in destinations_of(item):
            quota = self._limits.destinations.get(name)
            if quota is None:
                continue
            if quota.closed_until <= now and (not quota.half_open or quota in item.quotas):
                continue
            self.held_back_total += 1
            own = DESTINATION + name
            state = self._lanes.get(item.claimed.lane_id)
            if state is not None and state.lane.scope == own:
                self._release(item, None, None)
            elif state is not None and not state.lane.scope and (lane := self._known(item, own)):
                self._release(item, None, lane)
            else:
                self._release(item, DEFER_S * random.uniform(0.5, 1.5), None)
            return True
        return False

    def take(self, name: str) -> bool:
        """Let one delivery to `name` pass, if it may talk now (a provider among several)."""
        quota = self._limits.destinations.get(name)
        if quota is None:
            return True
        quota.demand = max(quota.demand, 1)
        if quota.room < 1:
            return False
        quota.take(1)
        quota.in_use -= 1
        return True

    def opens_at(self, names: Iterable[str]) -> datetime:
        """Return when the first of them may be talked to, by the database's clock."""
        quotas = [self._limits.destinations.get(name) for name in names]
        closed_s = min((0.0 if quota is None else quota.closed_s for quota in quotas), default=0.0)
        return self._life.db_now() + timedelta(seconds=max(CLOSED_S_MIN, closed_s))

    def _known(self, item: Item, scope: str) -> LaneId | None:
        if self._lanes.version != self._lanes_seen:
            # Idle ones are deleted now and then. One that is newer than the picture is there.
            self._lanes_seen = self._lanes.version
            self._lane_ids = {
                key: lane
                for key, lane in self._lane_ids.items()
                if self._lanes.get(lane) is not None or not self._lanes.knows(lane)
            }
        return self._lane_ids.get((item.claimed.tenant_id, item.claimed.queue, scope))

    async def _lane(self, connection: Connection, item: Item, scope: str) -> LaneId:
        key = (item.claimed.tenant_id, item.claimed.queue, scope)
        lane = self._known(item, scope)
        if lane is None:
            lane = await store.scope_lane(connection, tenant_id=key[0], queue=key[1], scope=scope)
            if len(self._lane_ids) >= LANES_KEPT_MAX:
                self._lane_ids.clear()
            self._lane_ids[key] = lane
            if not self._lanes.knows(lane):
                self._on_new_lane()
        return lane

    # -- after an attempt -------------------------------------------------------------------

    def saw(self, item: Item, outcome: Outcome) -> None:
        """Learn from an attempt."""
        if isinstance(outcome, Retryable) or self._watched or self._windows:
            names = _told_of(destinations_of(item), outcome)
            for name, is_own in zip(names, _narrowest(names), strict=True):
                is_probe = self._limits.destinations.get(name) in item.quotas
                self.saw_of(name, outcome, counts=is_own, is_probe=is_probe)

    def saw_of(
        self, name: str, outcome: Outcome, *, counts: bool = True, is_probe: bool = True
    ) -> None:
        """Learn from an attempt with this destination; `counts`: towards its breaker."""
        if isinstance(outcome, Snoozed):
            return
        asked_s = _asks_for(outcome)
        failed = asked_s is None and _is_failing(outcome)
        if asked_s is not None and not name.startswith("endpoint:"):
            self._pause(name, asked_s)
        quota = self._limits.destinations.get(name)
        if quota is not None and quota.half_open and quota.closed_until <= monotonic():
            if is_probe:
                self._settled[name] = not failed
                self._event.set()
            return
        if not counts or asked_s is not None:
            return
        window = self._windows.get(name)
        if window is None:
            is_fine = not failed and name not in self._watched
            if is_fine or len(self._windows) >= NAMES_MAX:
                return
            window = self._windows[name] = Window()
        window.add(well=not failed)
        if window.failed_untold >= TELL_FAILURES:
            self._event.set()

    def _pause(self, name: str, asked_s: float) -> None:
        until = monotonic() + asked_s
        if until > self._limits.closed_until(name) + 0.5:
            # Here at once; for the others as soon as the store has it.
            self._limits.close(name, until)
            self._pauses[name] = until
            self._slow(name)
            self._lanes.limits_changed()
            self._event.set()

    def _slow(self, name: str) -> None:
        """Have what waits for it begin with one at a time when it may go on."""
        for state in self._lanes.all():
            if state.lane.scope == DESTINATION + name:
                state.start_slowly()

    # -- with the store ---------------------------------------------------------------------

    async def load(self, connection: Connection, version: int) -> None:
        """Take over what the fleet knows."""
        sent_at = monotonic()
        rows = await store.load_destinations(connection)
        self._watched = {row.name for row in rows}
        for row in rows:
            if sent_at + row.closed_s > self._limits.closed_until(row.name) + 0.5:
                self._slow(row.name)
        self._limits.set_destinations(rows, sent_at=sent_at, unsaved=self._pauses)
        self._lanes.limits_changed()
        self.version = version

    async def run(self, connection: Connection, lock: asyncio.Lock) -> None:
        """Tell the store until cancelled. Lets psycopg's OperationalError out."""
        while True:
            try:
                async with asyncio.timeout(TELL_S):
                    await self._event.wait()
            except TimeoutError:
                pass
            self._event.clear()
            if self._pauses or self._settled or self._windows:
                async with lock:
                    await self._tell(connection)
                await asyncio.sleep(TELL_S_MIN)

    async def _tell(self, connection: Connection) -> None:
        for name, until in list(self._pauses.items()):
            pause_s = until - monotonic()
            if pause_s > 0:
                await store.pause_destination(connection, name, pause_s)
                log.warning("destination asked for a pause", destination=name, pause_s=pause_s)
            if self._pauses.get(name) == until:
                del self._pauses[name]
        for name, well in list(self._settled.items()):
            del self._settled[name]
            self._windows.pop(name, None)
            await store.settle_destination(connection, name, well=well)
        told = []
        for name, window in list(self._windows.items()):
            good, bad = window.sums()
            if window.changed:
                window.changed, window.failed_untold = False, 0
                told.append(Health(name, good, bad))
            if good + bad == 0 or (bad == 0 and name not in self._watched):
                del self._windows[name]
        if told:
            await store.report_destinations(connection, told, epoch=self._life.epoch)


def destinations_of(item: Item) -> tuple[str, ...]:
    """Return whom a delivery talks to, the widest first; nothing for what stays in this database.

    A tenant's several providers are asked one after the other: each sees to its own gate.
    """
    message = item.message
    if message is None or message.channel is None:
        return ()
    if message.channel == "webhook":
        names = _host_of(message.to or "")
        return names if message.endpoint is None else (*names, f"endpoint:{message.endpoint}")
    if message.channel == "browser":
        found: dict[str, None] = {}
        for device in message.devices:
            found |= dict.fromkeys(_host_of(device.address))
        return tuple(found)
    if isinstance(item.handler, FailOver):
        members = item.handler.members
        return (members[0].destination,) if len(members) == 1 else ()
    return (f"provider:{message.channel}",)


@lru_cache(maxsize=4096)
def _host_of(url: str) -> tuple[str, ...]:
    """Return a URL's host, with its port where that is not the scheme's own: other software."""
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").encode("idna").decode()
        port = parts.port
    except (ValueError, UnicodeError):
        return ()
    if ":" in host:
        host = f"[{host}]"
    if port not in (None, _PORTS.get(parts.scheme)):
        host = f"{host}:{port}"
    return (f"host:{host}",) if _NAME.fullmatch(host) else ()


def _told_of(names: tuple[str, ...], outcome: Outcome) -> tuple[str, ...]:
    """Return the destinations that an outcome is about: of several hosts, the one that failed."""
    if len(names) < 2 or names[-1].startswith("endpoint:") or not isinstance(outcome, Retryable):
        return names
    asked = None if outcome.sent is None else outcome.sent.recipient
    return tuple(name for name in _host_of(asked or "") if name in names)


def _narrowest(names: tuple[str, ...]) -> list[bool]:
    """Tell which of them an attempt counts for: an endpoint's trouble is not its host's.

    Several hosts that were asked at once went well, or each in its own way: it counts for none.
    """
    if len(names) > 1 and not names[-1].startswith("endpoint:"):
        return [False] * len(names)
    return [n == len(names) for n in range(1, len(names) + 1)]


def _asks_for(outcome: Outcome) -> float | None:
    """Return the pause that the destination asked for, in seconds."""
    if (
        isinstance(outcome, Retryable)
        and outcome.scope in ("destination", "provider")
        and outcome.retry_after_s
    ):
        return min(outcome.retry_after_s, RETRY_AFTER_S_MAX)
    return None


def _is_failing(outcome: Outcome) -> bool:
    """Tell whether an outcome says that the destination itself is not well."""
    if not isinstance(outcome, Retryable) or outcome.attempts_max is not None:
        return False
    if outcome.code in _PASSING:
        return False
    return (
        outcome.scope in ("destination", "provider")
        or outcome.code.startswith("http.")
        or outcome.code == "delivery.timeout"
    )

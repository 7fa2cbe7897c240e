"""When to look for work: the bell, the next due time, and a poll that correctness rests on.

A far poll looks at all lanes from the bottom, and so walks over what nobody can vacuum while
somebody holds a snapshot open: a second and more after a million jobs. So far polls get a bounded
share of the time, and near ones (see `floors`) come in between. What is known to become due is not
looked for: its lane is asked.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from time import monotonic
from typing import Literal, TypeAlias

from outbox.message import LaneId
from outbox_dispatcher.pace import Pace

BUSY_POLL_S = 0.1
FAR_S = 1.0
"""A far poll is made at least so often, unless the last ones took too long."""

Reach: TypeAlias = Literal["near", "far"]


class Wakeup:
    """Collects reasons to look. One waiter; anybody rings."""

    def __init__(self, *, poll_s_min: float, poll_s_max: float) -> None:
        self._event = asyncio.Event()
        self._poll_s_min = poll_s_min
        self._poll_s_max = poll_s_max
        self._poll_s = poll_s_min
        self._poll_at = 0.0
        self._looked_at = 0.0
        self._paces: dict[Reach, Pace] = {"near": Pace(), "far": Pace()}
        self._due_at: dict[LaneId, float] = {}
        self._next_due_at = float("inf")
        self._rung: set[LaneId] = set()
        self._rung_all = False

    def nudge(self) -> None:
        """Look again: room was made, or something changed here."""
        self._event.set()

    def ring(self, payload: str) -> None:
        """Take a bell's payload: lane ids, or nothing for any lane."""
        lanes = [part for part in payload.split(",") if part]
        if not lanes or not all(part.isdecimal() for part in lanes):
            self._rung_all = True
        else:
            self._rung.update(LaneId(int(part)) for part in lanes)
        self._event.set()

    def rung(self) -> set[LaneId] | None:
        """Return and forget the lanes that were rung for; None: any."""
        lanes, everything = self._rung, self._rung_all
        self._rung, self._rung_all = set(), False
        return None if everything else lanes

    def busy(self, *, more: bool) -> None:
        """Work was found: poll soon again; less soon where claims go on with `more` anyway."""
        self._poll_s = self._poll_s_min
        now = monotonic()
        poll_at = now + max(self._poll_s_min, BUSY_POLL_S if more else 0.0)
        # However busy: what lies below the floors of claims is found by polls alone.
        far_at = max(self._looked_at + FAR_S, self._paces["far"].may_at)
        self._poll_at = min(poll_at, max(now, far_at))

    def look_soon(self) -> None:
        """Poll once soon: there may be something that a claim could not find."""
        self._poll_at = min(self._poll_at, monotonic() + self._poll_s_min)

    def polled(
        self, reach: Reach, took_s: float, due_in_s: Mapping[LaneId, float], *, fleet_size: int = 1
    ) -> None:
        """Note that a poll took so long, and when entries of which lanes become due."""
        # Whoever finds something far below claims it: the fleet takes turns.
        self._paces[reach].took(took_s, walkers=max(1, fleet_size) if reach == "far" else 1)
        now = monotonic()
        if reach == "far":
            self._looked_at = now
        due_at = {lane: now + in_s for lane, in_s in due_in_s.items()}
        # A near poll has not asked all lanes.
        self._due_at = due_at if reach == "far" else self._due_at | due_at
        self._next_due_at = min(self._due_at.values(), default=float("inf"))

    def idle(self) -> None:
        """Nothing was due: poll later and later."""
        self._poll_s = min(self._poll_s * 2, self._poll_s_max)
        self._schedule_poll()

    def due(self) -> set[LaneId]:
        """Return and forget the lanes of which entries have become due."""
        now = monotonic()
        if now < self._next_due_at:
            return set()
        lanes = {lane for lane, at in self._due_at.items() if at <= now}
        for lane in lanes:
            del self._due_at[lane]
        self._next_due_at = min(self._due_at.values(), default=float("inf"))
        # What comes after them, a poll tells; and finds them, where our clock was ahead.
        self.busy(more=False)
        return lanes

    def _schedule_poll(self) -> None:
        # Jitter, so that a fleet that was started together does not poll together.
        self._poll_at = monotonic() + self._poll_s * random.uniform(0.9, 1.0)

    def poll_due(self) -> Reach | None:
        """Return how far to look, if it is time to ask which lanes have due entries."""
        now = monotonic()
        if now < self._poll_at:
            return None
        reaches: tuple[Reach, ...] = ("far", "near")
        return next((reach for reach in reaches if now >= self._paces[reach].may_at), None)

    async def wait(self, until: float = float("inf")) -> None:
        """Sleep until the earliest of bell, nudge, next due time, poll, and `until`."""
        poll_at = max(self._poll_at, min(pace.may_at for pace in self._paces.values()))
        delay_s = min(poll_at, self._next_due_at, until) - monotonic()
        if delay_s > 0 and not self._event.is_set():
            try:
                async with asyncio.timeout(delay_s):
                    await self._event.wait()
            except TimeoutError:
                pass
        else:
            # Whatever is due again and again, the heartbeat must get its turn.
            await asyncio.sleep(0)
        self._event.clear()

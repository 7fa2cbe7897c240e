"""When to look for work: the bell, the next due time, and a poll that correctness rests on.

A poll walks over what nobody can vacuum while somebody holds a snapshot open: a second and more
after a million jobs. So polls get a bounded share of the time, and what is known to become due is
not looked for: its lane is asked.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from time import monotonic

from outbox.message import LaneId

BUSY_POLL_S = 0.1
POLL_SHARE_MAX = 0.05
"""At most this share of the time goes into polls."""
POLL_PAUSE_S_MAX = 15.0
"""But no longer between two: a poll may also have taken long because the machine stood still."""
POLL_S_CHEAP = 0.02
"""What a poll may take without making the next one wait."""


class Wakeup:
    """Collects reasons to look. One waiter; anybody rings."""

    def __init__(self, *, poll_s_min: float, poll_s_max: float) -> None:
        self._event = asyncio.Event()
        self._poll_s_min = poll_s_min
        self._poll_s_max = poll_s_max
        self._poll_s = poll_s_min
        self._poll_at = 0.0
        self._may_poll_at = 0.0
        self._last_took_s = 0.0
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
        self._poll_at = monotonic() + max(self._poll_s_min, BUSY_POLL_S if more else 0.0)

    def polled(self, took_s: float, due_in_s: Mapping[LaneId, float]) -> None:
        """Note that a poll took so long, and when entries of which lanes become due."""
        now = monotonic()
        # One that was slow by itself met a cold cache, or a machine that stood still.
        self._last_took_s, lasting_s = took_s, min(took_s, self._last_took_s)
        if lasting_s > POLL_S_CHEAP:
            self._may_poll_at = now + min(lasting_s / POLL_SHARE_MAX, POLL_PAUSE_S_MAX)
        self._due_at = {lane: now + in_s for lane, in_s in due_in_s.items()}
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

    def poll_is_due(self) -> bool:
        """Return whether it is time to ask which lanes have due entries."""
        return monotonic() >= max(self._poll_at, self._may_poll_at)

    async def wait(self, until: float = float("inf")) -> None:
        """Sleep until the earliest of bell, nudge, next due time, poll, and `until`."""
        poll_at = max(self._poll_at, self._may_poll_at)
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

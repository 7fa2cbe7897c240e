"""When to look for work: the bell, the next due time, and a poll that correctness rests on."""

from __future__ import annotations

import asyncio
import random
from time import monotonic

from outbox.message import LaneId

BUSY_POLL_S = 0.1


class Wakeup:
    """Collects reasons to look. One waiter; anybody rings."""

    def __init__(self, *, poll_s_min: float, poll_s_max: float) -> None:
        self._event = asyncio.Event()
        self._poll_s_min = poll_s_min
        self._poll_s_max = poll_s_max
        self._poll_s = poll_s_min
        self._poll_at = 0.0
        self._due_at = float("inf")
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

    def idle(self, next_due_in_s: float | None) -> None:
        """Nothing was due: poll later and later, and be there when the next entry becomes due."""
        self._poll_s = min(self._poll_s * 2, self._poll_s_max)
        self._due_at = float("inf") if next_due_in_s is None else monotonic() + next_due_in_s
        self._schedule_poll()

    def _schedule_poll(self) -> None:
        # Jitter, so that a fleet that was started together does not poll together.
        self._poll_at = monotonic() + self._poll_s * random.uniform(0.9, 1.0)

    def poll_is_due(self) -> bool:
        """Return whether it is time to ask which lanes have due entries."""
        return monotonic() >= min(self._poll_at, self._due_at)

    async def wait(self, until: float = float("inf")) -> None:
        """Sleep until the earliest of bell, nudge, next due time, poll, and `until`."""
        delay_s = min(self._poll_at, self._due_at, until) - monotonic()
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

"""What has to be done now and then, by whoever comes first: no leader, every step bounded.

A fleet does each chore about as often as one dispatcher alone would: each takes its turn less
often the more there are.

What belongs to days (partitions, retention) is in `keeper`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic

from outbox.store import engine
from outbox.store.engine import Connection
from outbox_dispatcher.life import Life
from outbox_dispatcher.pace import SHARE_MAX, Pace

EXPIRE_S = 5.0
"""What nobody claims (paused, held, backing off) is audited as expired within so long."""
HOLDS_S = 60.0
ROLL_UP_S = 30.0
LEASES_S = 15.0
GAPS_S = 1.0
"""An ordering_key stands still so long whose head ended while a producer held its lock."""
DEDUP_S = 30.0
RECEIPTS_S = 60.0
BATCH = 500
NEAR_S = 10.0
"""A round of expiry that is not from the bottom begins so long before the end of the last."""


@dataclass(slots=True)
class Expiry:
    """Ends what has expired, round after round.

    A round from the bottom walks over all that an old snapshot keeps from being vacuumed, so it
    gets a share of the time. Rounds in between begin a little before where the last one ended.
    """

    connection: Connection
    life: Life
    pace: Pace = field(default_factory=Pace)
    _reached: datetime | None = None
    _within: bool = False

    async def step(self) -> bool:
        """End a batch; return whether there is more in this round."""
        after = self._reached
        from_bottom = not self._within and monotonic() >= self.pace.may_at
        if from_bottom:
            after = None
        elif after is not None and not self._within:
            after -= timedelta(seconds=NEAR_S)
        began = monotonic()
        done = await engine.expire(
            self.connection, epoch=self.life.epoch, limit=BATCH, after=after
        )
        if from_bottom:
            self.pace.took(monotonic() - began)
        self._reached, self._within = done.reached, done.ended == BATCH
        return self._within


@dataclass(slots=True)
class Chore:
    """One thing to do every `every_s`, by the fleet; it says whether there is more right now."""

    every_s: float
    run: Callable[[], Awaitable[bool]]
    at: float = field(default=0.0)
    taking_turns: bool = True
    """False: each dispatcher does it every `every_s`, for somebody waits for it."""

    def again_in_s(self, fleet_size: int) -> float:
        """Return when this dispatcher's next turn comes."""
        share = max(1, fleet_size) if self.taking_turns else 1
        # Jitter, so that a fleet spreads its turns.
        return self.every_s * share * random.uniform(0.8, 1.2)


async def upkeep(
    connection: Connection, lock: asyncio.Lock, *, life: Life, hold_max_s: float, overdue_s: float
) -> None:
    """Do the chores until cancelled. The connection is shared, one statement at a time."""
    expiry = Expiry(connection, life)

    async def holds() -> bool:
        ended = await engine.expire_holds(
            connection, epoch=life.epoch, hold_max_s=hold_max_s, limit=BATCH
        )
        return ended == BATCH

    async def roll_up() -> bool:
        return await engine.roll_up(connection) == 20_000

    async def receipts() -> bool:
        missed = await engine.miss_receipts(connection, overdue_s=overdue_s, limit=BATCH)
        return missed == BATCH

    async def leases() -> bool:
        return bool(await engine.rescue(connection, dead=[], epoch=life.epoch, limit=BATCH))

    async def gaps() -> bool:
        if not life.gaps:
            return False
        closed = await engine.close_gaps(connection, hold_max_s=hold_max_s, limit=BATCH)
        return closed == BATCH

    async def dedup() -> bool:
        return await engine.prune_dedup(connection, limit=BATCH) == BATCH

    now = monotonic()
    chores = [
        Chore(EXPIRE_S, expiry.step, now),
        Chore(HOLDS_S, holds, now),
        Chore(ROLL_UP_S, roll_up, now + random.uniform(0, ROLL_UP_S)),
        Chore(RECEIPTS_S, receipts, now + random.uniform(0, RECEIPTS_S)),
        Chore(LEASES_S, leases, now + random.uniform(0, LEASES_S)),
        Chore(GAPS_S, gaps, now + random.uniform(0, GAPS_S), taking_turns=False),
        Chore(DEDUP_S, dedup, now + random.uniform(0, DEDUP_S)),
    ]
    while True:
        chore = min(chores, key=lambda c: c.at)
        await asyncio.sleep(max(0.0, chore.at - monotonic()))
        async with lock:
            began = monotonic()
            more = await chore.run()
        # Others who wait for the connection get it for most of the time, however long one takes.
        rest_s = max(chore.again_in_s(life.fleet_size), (monotonic() - began) / SHARE_MAX)
        chore.at = monotonic() + (0.0 if more else rest_s)

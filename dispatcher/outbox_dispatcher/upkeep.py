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
from time import monotonic

from outbox.store import engine
from outbox.store.engine import Connection
from outbox_dispatcher.life import Life

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

    async def expire() -> bool:
        return await engine.expire(connection, epoch=life.epoch, limit=BATCH) == BATCH

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
        Chore(EXPIRE_S, expire, now),
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
            more = await chore.run()
        chore.at = monotonic() + (0.0 if more else chore.again_in_s(life.fleet_size))

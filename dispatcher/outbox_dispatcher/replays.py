"""Replays that operators have begun, taken further by whichever dispatcher is there.

A run is a row in the store; each step is one transaction that moves the row and begins the new
series of a few jobs. So a dispatcher that dies in the middle leaves nothing to mend, and several
share one run's rate. Heartbeats tell whether there is a run at all.
"""

from __future__ import annotations

import asyncio

from outbox.store import replays
from outbox.store.engine import Connection
from outbox_dispatcher.life import Life

LOOK_S = 0.5
STEP_S_MIN = 0.01
STEP_S_MAX = 1.0


async def replay(connection: Connection, lock: asyncio.Lock, *, life: Life) -> None:
    """Take runs further until cancelled. The connection is shared, one statement at a time."""
    while True:
        if not life.replays:
            await asyncio.sleep(LOOK_S)
            continue
        async with lock:
            again_s = await replays.step(connection)
        if again_s is None:  # it has ended, or others are at it
            await asyncio.sleep(LOOK_S)
        else:
            await asyncio.sleep(min(max(again_s, STEP_S_MIN), STEP_S_MAX))

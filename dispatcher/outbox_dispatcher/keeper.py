"""Days: partitions made ahead, retired behind, ANALYZEd; by whichever dispatcher comes first.

A round an hour, on a connection of its own, which is closed in between. Each step is bounded and
holds no lock that a producer waits for longer than 50 ms; between two steps it rests for nine
times as long as the step took. A step that cannot get its lock is tried again for a while, and
then an hour later. Nothing here can end a session: what fails is logged.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from time import monotonic
from typing import TypeVar

import psycopg
import structlog

from outbox.store import retention
from outbox.store.engine import Connection
from outbox_dispatcher.links import open_link

ROUND_S = 3600.0
REST_FACTOR = 9.0
"""Upkeep takes at most a tenth of one connection's time."""
REST_S_MIN = 0.02
LOCK_TRIES = 20
LOCK_PAUSE_S = 1.0
STEP_MS_MAX = 120_000

T = TypeVar("T")
Rest = Callable[[float], Awaitable[None]]

log = structlog.get_logger(__name__)


async def keep(url: str) -> None:
    """Do a round at once, and then one an hour, until cancelled."""
    while True:
        try:
            # What a crash undoes here is done again.
            async with open_link(
                url, "keep", synchronous_commit="off", statement_timeout=str(STEP_MS_MAX)
            ) as connection:
                await keep_once(connection)
        except psycopg.Error as error:
            log.warning(
                "upkeep was cut short", error=type(error).__name__, again_in_s=round(ROUND_S)
            )
        await asyncio.sleep(ROUND_S * random.uniform(0.8, 1.2))


async def keep_once(
    connection: Connection, *, now: datetime | None = None, rest: Rest = asyncio.sleep
) -> None:
    """Do one round. `now` stands in for the database's clock. Lets psycopg's errors out."""

    async def step(work: Callable[[], Awaitable[T]]) -> T:
        for tried in range(1, LOCK_TRIES + 1):
            began = monotonic()
            try:
                done = await work()
            except psycopg.errors.LockNotAvailable:
                if tried == LOCK_TRIES:
                    raise
                await rest(LOCK_PAUSE_S * random.uniform(0.5, 1.5))
            else:
                await rest(max(REST_S_MIN, REST_FACTOR * (monotonic() - began)))
                return done
        raise AssertionError

    await step(lambda: retention.make_partitions(connection, now=now))
    while await step(lambda: retention.prune_retired(connection)) is not None:
        pass
    while day := await step(lambda: retention.retire_day(connection, now=now)):
        log.info("a day is over age", day=day.isoformat())
        while await step(lambda: retention.prune_retired(connection)) is not None:
            pass
    while await step(lambda: retention.prune_aged(connection, now=now)):
        pass
    while await step(lambda: retention.prune_lanes(connection)):
        pass
    await step(lambda: retention.prune_progress(connection))
    await step(lambda: retention.analyze_parents(connection, now=now))

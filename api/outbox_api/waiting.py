"""`Prefer: wait=N`: callers that want to know how their job ended.

One task asks for all of them together, so a thousand waiting callers cost one query a round.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection

import structlog

from outbox.errors import StoreUnavailable
from outbox.store import jobs
from outbox.store.jobs import LIVE
from outbox.store.pool import EVERY_TENANT, Database

WAIT_S_MAX = 60.0
WAITERS_MAX = 1_000
ROUND_S_MIN = 0.02
ROUND_S_MAX = 0.25

_WAIT = re.compile(
    r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,6}(?:\.\d{1,3})?)\"?(?:$|[,;\s])", re.IGNORECASE
)
_log = structlog.get_logger("outbox.api.waiting")


def wait_s_of(prefer: str) -> float | None:
    """Return for how long a `Prefer` header wants to wait; None: not at all."""
    found = _WAIT.search(prefer)
    return min(float(found[1]), WAIT_S_MAX) if found is not None else None


def common_status(statuses: Collection[str]) -> str:
    """Return the status of a list's jobs where they agree, else what they come to together."""
    said = set(statuses)
    if len(said) == 1:
        return said.pop()
    return "processing" if said & LIVE else "failed"


class Waiting:
    """Waits for jobs to end."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wanted: dict[tuple[str, str], list[asyncio.Future[str]]] = {}
        self._count = 0
        self._task: asyncio.Task[None] | None = None

    async def until_ended(self, tenant: str, job_id: str, *, status: str, wait_s: float) -> str:
        """Return the status in which the job ended, or its status after `wait_s` seconds."""
        if status not in LIVE or self._count >= WAITERS_MAX:
            return status
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        key = (tenant, job_id)
        self._wanted.setdefault(key, []).append(ended)
        self._count += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="waiting")
        try:
            async with asyncio.timeout(wait_s):
                return await ended
        except TimeoutError:
            return await self._status_now(key, status)
        finally:
            self._count -= 1
            waiters = self._wanted[key]
            waiters.remove(ended)
            if not waiters:
                del self._wanted[key]

    async def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        round_s = ROUND_S_MIN
        while self._wanted:
            await asyncio.sleep(round_s)
            round_s = min(round_s * 1.3, ROUND_S_MAX)
            keys = list(self._wanted)
            try:
                async with self._database.transaction(EVERY_TENANT, read_only=True) as connection:
                    statuses = await jobs.statuses(connection, keys)
            except StoreUnavailable:
                continue  # they wait on; a database that comes back may yet tell
            for key, status in statuses.items():
                if status in LIVE:
                    continue
                round_s = ROUND_S_MIN
                for waiter in self._wanted.get(key, ()):
                    if not waiter.done():
                        waiter.set_result(status)

    async def _status_now(self, key: tuple[str, str], last: str) -> str:
        try:
            async with self._database.transaction(EVERY_TENANT, read_only=True) as connection:
                return (await jobs.statuses(connection, [key])).get(key, last)
        except StoreUnavailable:
            return last

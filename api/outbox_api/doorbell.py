"""The doorbell: wakes dispatchers after a commit, on a connection of its own.

NOTIFY takes a lock over the whole database at commit, so it never happens inside a transaction
that stores jobs (store.md 6). Rings that come while one is under way become one. A bell that
cannot be rung is no failure: dispatchers poll as well.
"""

from __future__ import annotations

import asyncio
import contextlib

import psycopg
import structlog

GAP_S_MIN = 0.002
GAP_S_MAX = 0.05
"""Between two rings: what comes meanwhile shares the next one. The gap grows while the ringing
goes on, as dispatchers that are busy don't sleep, and begins anew after a silence.
"""
RECONNECT_S = 1.0
RING = "begin; set local synchronous_commit = off; select pg_notify('outbox_bell', ''); commit"
"""A lost bell costs a poll's delay, so its commit need not wait for the disk. Set for this one
transaction alone: behind a pooler, others commit on the same connection next.
"""

_log = structlog.get_logger("outbox.api.doorbell")


class Doorbell:
    """Enter it in the event loop that rings."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._wanted = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Doorbell:
        self._task = asyncio.create_task(self._run(), name="doorbell")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def ring(self) -> None:
        """Wake dispatchers soon: jobs were committed."""
        self._wanted.set()

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                async with await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, connect_timeout=2, application_name="outbox-bell"
                ) as connection:
                    await self._answer(connection)
            except psycopg.Error as error:
                _log.warning("the bell is silent", sqlstate=error.sqlstate)
                await asyncio.sleep(RECONNECT_S)

    async def _answer(self, connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        loop = asyncio.get_running_loop()
        gap_s = GAP_S_MIN
        while True:
            silent_since_s = loop.time()
            await self._wanted.wait()
            if loop.time() - silent_since_s > GAP_S_MAX:
                gap_s = GAP_S_MIN
            self._wanted.clear()
            try:
                await connection.execute(RING, prepare=False)
            except psycopg.Error:
                self._wanted.set()
                raise
            await asyncio.sleep(gap_s)
            gap_s = min(gap_s * 2, GAP_S_MAX)

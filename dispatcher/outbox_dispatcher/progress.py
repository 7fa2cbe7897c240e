"""What long attempts say of how far they have come, on its way into the store.

Nothing of it touches those that say nothing. Of each attempt the last report is kept until the
next write, at most one a second for all of this process's attempts together, and it is fenced like
an outcome: under a lease that has moved on nothing is written. A report that gets lost with a
connection is not missed; the next one says more.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import lru_cache
from math import isfinite

from outbox.channels import takes_progress
from outbox.message import Lease
from outbox.outcome import clean_text
from outbox.store import engine
from outbox.store.engine import Claimed, Connection, ProgressReport
from outbox_dispatcher.life import Life

EVERY_S = 1.0
TEXT_CHARS_MAX = 200

reports = lru_cache(maxsize=1_000)(takes_progress)


class Reporter:
    """What a handler is given for one attempt; afterwards it says nothing more."""

    def __init__(self, book: ProgressBook, claimed: Claimed) -> None:
        self._book = book
        self.claimed = claimed
        self.over = False
        self.was_written = False

    def __call__(self, done: float, total: float = 1.0, text: str = "") -> None:
        """Take a report, from any thread. Raises ValueError."""
        if not (isfinite(done) and isfinite(total)) or done < 0 or total <= 0:
            raise ValueError(f"progress: {done!r} of {total!r} is no part of a whole")
        self._book.take(self, min(float(done), float(total)), float(total), text)


class ProgressBook:
    """The last report of each running attempt, as far as it is not written yet."""

    def __init__(self, *, life: Life, mask: Callable[[str], str]) -> None:
        self._life = life
        self._mask = mask
        self._lock = threading.Lock()
        self._latest: dict[Reporter, tuple[float, float, str]] = {}
        self._over: list[Lease] = []
        self._something = asyncio.Event()
        self._told = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self, claimed: Claimed) -> Reporter:
        """Return what the attempt reports by."""
        self._loop = asyncio.get_running_loop()
        return Reporter(self, claimed)

    def end(self, reporter: Reporter) -> None:
        """Let an attempt that is over say nothing more, and forget what it said."""
        with self._lock:
            reporter.over = True
            self._latest.pop(reporter, None)
        if reporter.was_written:
            self._over.append(reporter.claimed.lease)
            self._something.set()

    def take(self, reporter: Reporter, done: float, total: float, text: str) -> None:
        """Keep a report until the next write."""
        with self._lock:
            if reporter.over:
                return
            self._latest[reporter] = (done, total, text)
            if self._told:
                return
            self._told = True
        assert self._loop is not None
        # Closed: the thread of an attempt has outlived its dispatcher.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._something.set)

    async def run(self, connection: Connection, lock: asyncio.Lock) -> None:
        """Write until cancelled. The connection is shared. Lets psycopg's errors out."""
        while True:
            await self._something.wait()
            self._something.clear()
            await self._write(connection, lock)
            await asyncio.sleep(EVERY_S)

    async def _write(self, connection: Connection, lock: asyncio.Lock) -> None:
        with self._lock:
            latest, self._latest = self._latest, {}
            self._told = False
        over, self._over = self._over, []
        for reporter in latest:
            reporter.was_written = True
        if latest and not self._life.fenced:
            rows = [self._row(reporter.claimed, *said) for reporter, said in latest.items()]
            async with lock:
                await engine.report_progress(connection, rows, epoch=self._life.epoch)
        if over:
            async with lock:
                await engine.forget_progress(connection, over)

    def _row(self, claimed: Claimed, done: float, total: float, text: str) -> ProgressReport:
        return ProgressReport(
            id=claimed.id,
            lease_no=claimed.lease_no,
            tenant_id=claimed.tenant_id,
            done=done,
            total=total,
            note=clean_text(self._mask(str(text)), TEXT_CHARS_MAX) or None,
        )

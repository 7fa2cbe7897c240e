"""Single POSTs that arrive together share one statement and one commit.

    submit ─► line of its tenant ─► a flush takes up to 200 of one tenant ─► one result each

A flush starts at once when none is under way, so a lone job waits for nobody; what arrives
meanwhile shares the next one, so under load the batches grow by themselves. One flush at a time
was measured to be the fastest; but where one is slow (a lock that somebody holds), others set out
beside it. A faulty job never fails its neighbours: faults and conflicts are results. Where the
statement itself fails, its jobs are tried once more, one by one, and each gets its own answer;
that is safe because every job has its id before it is sent here. Tenants take turns.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TypeAlias

import msgspec
import psycopg

from outbox.errors import NotPermitted, StoreUnavailable
from outbox.store import jobs
from outbox.store.jobs import Enqueued
from outbox.store.pool import Database, as_unavailable

FLUSH_JOBS_MAX = 200
FLUSH_BYTES_MAX = 4 * 1024 * 1024
FLUSHES_MAX = 4
SLOW_S = 0.03
"""A flush that takes longer no longer keeps another from setting out."""
LOCK_MS_MAX = 200
LOCK_ALONE_MS_MAX = 2_000
"""How long a batch, or one job by itself, waits for a lock."""
ALONE_AT_ONCE_MAX = 3
WAITING_MAX = 10_000

Whose: TypeAlias = tuple[str | None, bool]
"""A tenant (None: each job says), and whether they are test jobs."""


class _Posted(msgspec.Struct, eq=False, gc=False):
    text: str
    traceparent: str | None
    fresh: bool
    done: asyncio.Future[Enqueued]
    repeated: bool = False


class Intake:
    """Enqueues single jobs. `on_stored` is called after each commit that stored something."""

    def __init__(
        self,
        database: Database,
        on_stored: Callable[[], None],
        *,
        flushes_max: int = FLUSHES_MAX,
    ) -> None:
        self._database = database
        self._on_stored = on_stored
        self._flushes_max = flushes_max
        self._lines: OrderedDict[Whose, deque[_Posted]] = OrderedDict()
        self._waiting = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: dict[object, float] = {}
        """Since when each flush runs."""

    def submit(
        self,
        tenant: str | None,
        text: str,
        traceparent: str | None,
        *,
        fresh: bool,
        test: bool = False,
    ) -> asyncio.Future[Enqueued]:
        """Hand in one JSON object that has a `job_id` (`fresh`: one that nobody else knows).

        Raises StoreUnavailable, now or later.
        """
        if self._waiting >= WAITING_MAX:
            raise StoreUnavailable("too many jobs wait to be stored")
        loop = asyncio.get_running_loop()
        posted = _Posted(text, traceparent, fresh, loop.create_future())
        whose = (tenant, test)
        line = self._lines.get(whose)
        if line is None:
            line = self._lines[whose] = deque()
        line.append(posted)
        self._waiting += 1
        if not self._under_way:
            self._set_out()
        return posted.done

    async def close(self) -> None:
        """Wait until what was handed in is stored, or refused."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _set_out(self) -> None:
        """Start a flush, unless one that is not slow will come for what waits."""
        loop = asyncio.get_running_loop()
        if (
            self._lines
            and len(self._under_way) < self._flushes_max
            and self._all_slow(loop.time())
        ):
            flush = object()
            self._under_way[flush] = loop.time()
            task = loop.create_task(self._flush_until_empty(flush))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _all_slow(self, now_s: float) -> bool:
        return all(now_s - began_s >= SLOW_S for began_s in self._under_way.values())

    async def _flush_until_empty(self, flush: object) -> None:
        loop = asyncio.get_running_loop()
        try:
            await asyncio.sleep(0)  # whoever arrives in this very turn of the loop comes along
            while self._lines:
                whose, batch = self._take()
                self._under_way[flush] = loop.time()
                help_after = loop.call_later(SLOW_S, self._set_out)
                try:
                    await self._flush(whose, batch)
                except BaseException as error:
                    _fail(batch, error)
                    raise
                finally:
                    help_after.cancel()
                # Others set out while this one was slow: enough of them, if one is not.
                del self._under_way[flush]
                if self._under_way and not self._all_slow(loop.time()):
                    return
                self._under_way[flush] = loop.time()
        finally:
            self._under_way.pop(flush, None)

    def _take(self) -> tuple[Whose, list[_Posted]]:
        whose, line = self._lines.popitem(last=False)
        batch: list[_Posted] = []
        size_bytes = 0
        while line and len(batch) < FLUSH_JOBS_MAX and size_bytes < FLUSH_BYTES_MAX:
            batch.append(line.popleft())
            size_bytes += len(batch[-1].text)
        if line:
            self._lines[whose] = line  # at the end: the other tenants come first
        self._waiting -= len(batch)
        return whose, batch

    async def _flush(self, whose: Whose, batch: list[_Posted]) -> None:
        try:
            results = await self._store(whose, batch)
        except StoreUnavailable as error:
            _fail(batch, error)
        except (psycopg.Error, NotPermitted):
            await self._one_by_one(whose, batch)
        else:
            self._settle(batch, results)

    async def _one_by_one(self, whose: Whose, batch: list[_Posted]) -> None:
        """Store each by itself, a few at a time: one that waits for a lock keeps no other."""
        places = asyncio.Semaphore(ALONE_AT_ONCE_MAX)

        async def alone(posted: _Posted) -> None:
            async with places:
                try:
                    results = await self._store(whose, [posted])
                except psycopg.Error as error:
                    _fail([posted], as_unavailable(error))
                except (StoreUnavailable, NotPermitted) as error:
                    _fail([posted], error)
                else:
                    self._settle([posted], results)

        await asyncio.gather(*map(alone, batch))

    async def _store(self, whose: Whose, batch: list[_Posted]) -> list[Enqueued]:
        """Store a batch, on another connection where one turns out to be dead."""
        tenant, test = whose
        traceparents = None
        if any(posted.traceparent is not None for posted in batch):
            traceparents = [posted.traceparent for posted in batch]
        text = f"[{','.join([posted.text for posted in batch])}]"
        for _ in range(self._database.size_max):
            async with self._database.connection() as connection:
                try:
                    return await jobs.enqueue(
                        connection,
                        text,
                        tenant=tenant,
                        skip_bad=True,
                        traceparents=traceparents,
                        test=test,
                        lock_ms_max=LOCK_ALONE_MS_MAX if len(batch) == 1 else LOCK_MS_MAX,
                    )
                except psycopg.OperationalError:
                    if not connection.closed:
                        raise
                    for posted in batch:
                        posted.repeated = True
        raise StoreUnavailable("every connection to Postgres was cut")

    def _settle(self, batch: list[_Posted], results: list[Enqueued]) -> None:
        stored = False
        for posted, result in zip(batch, results, strict=True):
            if (
                posted.repeated
                and posted.fresh
                and result.result == "duplicate"
                and str(result.job_id) in posted.text  # not of another with its dedup_key
            ):
                # The first try did commit; only its answer was lost.
                result = msgspec.structs.replace(result, result="new")
            if result.result == "new":
                stored = True
            if not posted.done.done():
                posted.done.set_result(result)
        if stored:
            self._on_stored()


def _fail(batch: list[_Posted], error: BaseException) -> None:
    for posted in batch:
        if not posted.done.done():
            if isinstance(error, asyncio.CancelledError):
                posted.done.cancel()
            else:
                posted.done.set_exception(error)

"""Single POSTs that arrive together share one statement and one commit.

    submit ─► line of its tenant ─► a flush takes up to 200 of one tenant ─► one result each

A flush starts as soon as one of a few connections is free, so a lone job waits for nobody, and
under load the batches grow by themselves. A faulty job never fails its neighbours: faults and
conflicts are results. Where the statement itself fails, its jobs are tried once more, one by one,
and each gets its own answer; that is safe because every job has its id before it is sent here.
Tenants take turns.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

import msgspec
import psycopg

from outbox.errors import NotPermitted, StoreUnavailable
from outbox.store import jobs
from outbox.store.jobs import Enqueued
from outbox.store.pool import Database, as_unavailable

FLUSH_JOBS_MAX = 200
FLUSH_BYTES_MAX = 4 * 1024 * 1024
FLUSHES_MAX = 2
"""At once. More would make smaller batches, and Postgres' own group commit does the rest."""
WAITING_MAX = 10_000


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
        self._lines: OrderedDict[str | None, deque[_Posted]] = OrderedDict()
        self._waiting = 0
        self._flushes: set[asyncio.Task[None]] = set()

    def submit(
        self, tenant: str | None, text: str, traceparent: str | None, *, fresh: bool
    ) -> asyncio.Future[Enqueued]:
        """Hand in one JSON object that has a `job_id` (`fresh`: one that nobody else knows).

        Raises StoreUnavailable, now or later.
        """
        if self._waiting >= WAITING_MAX:
            raise StoreUnavailable("too many jobs wait to be stored")
        loop = asyncio.get_running_loop()
        posted = _Posted(text, traceparent, fresh, loop.create_future())
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = deque()
        line.append(posted)
        self._waiting += 1
        if len(self._flushes) < self._flushes_max:
            flush = loop.create_task(self._flush_until_empty())
            self._flushes.add(flush)
            flush.add_done_callback(self._flushes.discard)
        return posted.done

    async def close(self) -> None:
        """Wait until what was handed in is stored, or refused."""
        await asyncio.gather(*self._flushes, return_exceptions=True)

    async def _flush_until_empty(self) -> None:
        await asyncio.sleep(0)  # whoever arrives in this very turn of the loop comes along
        while self._lines:
            tenant, batch = self._take()
            try:
                await self._flush(tenant, batch)
            except BaseException as error:
                _fail(batch, error)
                raise

    def _take(self) -> tuple[str | None, list[_Posted]]:
        tenant, line = self._lines.popitem(last=False)
        batch: list[_Posted] = []
        size_bytes = 0
        while line and len(batch) < FLUSH_JOBS_MAX and size_bytes < FLUSH_BYTES_MAX:
            batch.append(line.popleft())
            size_bytes += len(batch[-1].text)
        if line:
            self._lines[tenant] = line  # at the end: the other tenants come first
        self._waiting -= len(batch)
        return tenant, batch

    async def _flush(self, tenant: str | None, batch: list[_Posted]) -> None:
        try:
            results = await self._store(tenant, batch)
        except StoreUnavailable as error:
            _fail(batch, error)
        except (psycopg.Error, NotPermitted):
            await self._one_by_one(tenant, batch)
        else:
            self._settle(batch, results)

    async def _one_by_one(self, tenant: str | None, batch: list[_Posted]) -> None:
        for number, posted in enumerate(batch):
            try:
                results = await self._store(tenant, [posted])
            except StoreUnavailable as error:
                _fail(batch[number:], error)
                return
            except psycopg.Error as error:
                _fail([posted], as_unavailable(error))
            except NotPermitted as error:
                _fail([posted], error)
            else:
                self._settle([posted], results)

    async def _store(self, tenant: str | None, batch: list[_Posted]) -> list[Enqueued]:
        """Store a batch, on another connection where one turns out to be dead."""
        traceparents = None
        if any(posted.traceparent is not None for posted in batch):
            traceparents = [posted.traceparent for posted in batch]
        text = f"[{','.join([posted.text for posted in batch])}]"
        for _ in range(self._database.size_max):
            async with self._database.connection() as connection:
                try:
                    return await jobs.enqueue(
                        connection, text, tenant=tenant, skip_bad=True, traceparents=traceparents
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
            if posted.repeated and posted.fresh and result.result == "duplicate":
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

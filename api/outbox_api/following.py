"""Following what happens to jobs: one look at the store for all who follow, at their own pace.

While anybody follows, the `Tail` of a process asks the store for what is new, a few times a
second, and keeps the last few thousand happenings. Who keeps up reads from there. Who comes back
with a cursor, or was so slow that what comes next is no longer kept, reads from history until they
have caught up. So nobody misses anything, and no reader, however slow, costs more memory than a
page.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from typing import NamedTuple
from uuid import UUID

import msgspec
import structlog

from outbox.errors import StoreUnavailable
from outbox.store import stream
from outbox.store.jobs import Progress, progress_of
from outbox.store.pool import EVERY_TENANT, Database
from outbox.store.stream import KEPT_S, Cursor, Happening, Mark, Place

ROUND_S = 0.2
RETRY_S = 1.0
KEPT_MAX = 4_096
"""So many happenings a process keeps, of about a kilobyte each."""
QUIET_S = 15.0
"""After so long a silence readers are told that it is one, and where they are."""

NAMES = {
    "ENQUEUED": "enqueued",
    "SENT": "completed",
    "FAILED": "failed",
    "RETRYING": "retrying",
    "EXPIRED": "expired",
    "CANCELLED": "cancelled",
    "PROGRESS": "progress",
}
EVENTS = frozenset(NAMES.values()) | {"stalled"}


_log = structlog.get_logger("outbox.api.following")


class JobEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What happened to a job, as readers get it. No address, no payload, no provider's text."""

    event: str
    at: datetime
    job_id: UUID
    tenant_id: str
    queue: str
    channel: str | None
    template_code: str | None
    user_id: str | None
    event_id: str | None
    campaign_id: str | None
    test: bool | None
    series: int | None
    attempt: int | None
    provider: str | None = None
    error_class: str | None = None
    error_code: str | None = None
    duration_ms: int | None = None
    next_attempt_at: datetime | None = None
    progress: Progress | None = None


class Told(NamedTuple):
    """What a reader gets: an event, a gap, or (`name` empty) nothing but where they are."""

    cursor: Cursor
    name: str = ""
    body: object = None


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader did not get, because it lies too far back."""

    since: datetime
    until: datetime
    detail: str = (
        "History is followed for 7 days; GET /api/v1/jobs?since=&until= finds what is older."
    )


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events a reader wants; None: all."""

    sees: str
    test: bool = False
    """A test key's: it sees no job in earnest."""
    queues: frozenset[str] | None = None
    events: frozenset[str] | None = None
    job_id: UUID | None = None

    def takes(self, name: str, found: Happening) -> bool:
        """Tell whether they want it, and may have it."""
        return (
            self.sees in (EVERY_TENANT, found.tenant_id)
            and (found.test is True or not self.test)
            and (self.queues is None or found.queue in self.queues)
            and (self.events is None or name in self.events)
            and (self.job_id is None or self.job_id == found.job_id)
        )


def name_of(found: Happening) -> str | None:
    """Return the name of the event; None: its job is no longer kept."""
    if found.status is None or found.job_id is None:
        return None
    if found.error_code == "lease.lost" and not found.terminal:
        return "stalled"
    return NAMES[found.status]


def event_of(name: str, found: Happening) -> JobEvent:
    """Return it as readers get it."""
    assert found.job_id is not None
    assert found.tenant_id is not None
    assert found.queue is not None
    return JobEvent(
        event=name,
        at=found.at,
        job_id=found.job_id,
        tenant_id=found.tenant_id,
        queue=found.queue,
        channel=found.channel,
        template_code=found.template_code,
        user_id=found.user_id,
        event_id=found.event_id,
        campaign_id=found.campaign_id,
        test=found.test,
        series=found.series,
        attempt=found.attempt,
        provider=found.provider,
        error_class=found.error_class,
        error_code=found.error_code,
        duration_ms=found.duration_ms,
        next_attempt_at=found.next_attempt_at,
        progress=progress_of(found.done, found.total, found.note, found.at),
    )


class _Kept(NamedTuple):
    before: Mark
    seen: Mark
    found: Happening

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.before, self.seen, self.found.place)


class _Fallen(Exception):
    """What comes next is no longer kept: history has it."""


class Tail:
    """What happened last. `end` is the number of the next happening, and the mark behind it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._kept: list[_Kept | None] = [None] * KEPT_MAX
        self._next = 0
        self._readers = 0
        self._task: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self.end: tuple[int, Mark] | None = None

    @contextlib.contextmanager
    def followed(self) -> Iterator[None]:
        """Look at the store for as long as somebody follows."""
        self._readers += 1
        if self._task is None:
            # Of no request: it goes on when that one is over.
            context = contextvars.Context()
            self._task = asyncio.create_task(self._run(), name="tail", context=context)
        try:
            yield
        finally:
            self._readers -= 1
            if self._readers == 0:
                self._stop()

    async def close(self) -> None:
        """Stop looking."""
        task = self._task
        self._stop()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    async def ended(self, behind: Mark | None = None) -> tuple[int, Mark]:
        """Return `end` as soon as there is one, or another than `behind`."""
        while self.end is None or self.end[1] == behind:
            await self._moved.wait()
        return self.end

    async def moved(self, number: int, wait_s: float) -> None:
        """Wait until there is more than `number`, or for `wait_s`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while self._next <= number:
                    await self._moved.wait()

    def at(self, number: int) -> _Kept | None:
        """Return a happening; None: it has not happened yet. Raises _Fallen."""
        if number >= self._next:
            return None
        kept = self._kept[number % KEPT_MAX]
        if kept is None or not self.has(number):
            raise _Fallen
        return kept

    def has(self, number: int) -> bool:
        """Tell whether a happening is kept, or will be."""
        return number >= self._next - KEPT_MAX

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        # The next to follow begins anew; what was kept until then would leave a hole behind it.
        self._task, self.end = None, None
        self._kept = [None] * KEPT_MAX

    async def _run(self) -> None:
        mark: Mark | None = None
        while True:
            try:
                now = await stream.mark(self._database, mark)
                if mark is not None:
                    await self._read(mark, now)
                mark = now
                self.end = (self._next, mark)
                self._tell()
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)
            except Exception:  # a fault of ours must not leave readers waiting in silence for ever
                _log.exception("following failed")
                await asyncio.sleep(RETRY_S)
            await asyncio.sleep(ROUND_S)

    async def _read(self, before: Mark, seen: Mark) -> None:
        """Keep what is new; an outage is waited for, so that nothing is kept twice."""
        from_ms, place = before.new_from_ms(seen), None
        while from_ms is not None:
            try:
                async for found in stream.happenings(
                    self._database, EVERY_TENANT, before, seen, place, from_ms=from_ms
                ):
                    place = found.place
                    self._kept[self._next % KEPT_MAX] = _Kept(before, seen, found)
                    self._next += 1
                    if self._next % 256 == 0:
                        self._tell()
                        await asyncio.sleep(0)
                return
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()


class Reader:
    """One who follows: what they want, and where they are."""

    def __init__(
        self, tail: Tail, database: Database, wanted: Wanted, cursor: Cursor | None
    ) -> None:
        self._tail = tail
        self._database = database
        self._wanted = wanted
        self._cursor = cursor
        self._number: int | None = None
        self._told_s = 0.0

    async def follow(self) -> AsyncIterator[Told]:
        """Yield what happens, behind the cursor or from now on, without an end."""
        with self._tail.followed():
            number, mark = await self._tail.ended()
            if self._cursor is None:
                self._number, self._cursor = number, Cursor(mark)
            elif self._cursor.before.xmax > mark.xmax:
                # Another replica's mark may be newer than ours, but not than our next but one.
                for _ in range(2):
                    number, mark = await self._tail.ended(behind=mark)
                if self._cursor.before.xmax > mark.xmax:
                    # Of another database, or of a past that was lost with a primary.
                    yield _gap(self._cursor, mark, mark.at_ms)
                    self._number, self._cursor = number, Cursor(mark)
            yield self._here()
            while True:
                try:
                    if self._number is None:
                        async for told in self._history(self._cursor):
                            yield told
                    async for told in self._live(self._number or 0):
                        yield told
                except _Fallen:
                    self._number = None
                except StoreUnavailable:
                    await asyncio.sleep(RETRY_S)

    def _here(self) -> Told:
        assert self._cursor is not None
        self._told_s = time.monotonic()
        return Told(self._cursor)

    def _told(self, found: Happening) -> Told | None:
        """Return what the reader is told of it; None: nothing."""
        assert self._cursor is not None
        name = name_of(found)
        if name is None or not self._wanted.takes(name, found):
            if time.monotonic() - self._told_s > QUIET_S:
                return self._here()
            return None
        self._told_s = time.monotonic()
        return Told(self._cursor, name, event_of(name, found))

    async def _history(self, cursor: Cursor) -> AsyncIterator[Told]:
        """Read what lies before what is kept; then `_number` goes on from there."""
        while True:
            number, mark = await self._tail.ended()
            seen = cursor.seen
            if seen is None and cursor.before == mark and self._tail.has(number):
                self._number = number
                return
            if seen is None and cursor.before.xmax >= mark.xmax:
                await self._tail.ended(behind=mark)  # ours may be another replica's mark
                continue
            seen = seen or mark
            place = None if cursor.place is None else Place(*cursor.place)
            from_ms = cursor.before.new_from_ms(seen)
            if from_ms is not None:
                kept_ms = mark.at_ms - KEPT_S * 1000
                begins_ms = from_ms if place is None else max(from_ms, place.second * 1000)
                if begins_ms < kept_ms:
                    yield _gap(cursor, mark, begins_ms)
                async for found in stream.happenings(
                    self._database,
                    self._wanted.sees,
                    cursor.before,
                    seen,
                    place,
                    from_ms=max(from_ms, kept_ms),
                ):
                    self._cursor = Cursor(cursor.before, seen, found.place)
                    told = self._told(found)
                    if told is not None:
                        yield told
            self._cursor = cursor = Cursor(seen)

    async def _live(self, number: int) -> AsyncIterator[Told]:
        """Read what is kept, as it comes. Raises _Fallen when it is too late for that."""
        while True:
            kept = self._tail.at(number)
            if kept is not None:
                number = self._number = number + 1
                self._cursor = kept.cursor
                told = self._told(kept.found)
                if told is not None:
                    yield told
                continue
            end = self._tail.end
            if end is not None and end[0] == number:
                self._cursor = Cursor(end[1])
            quiet_s = time.monotonic() - self._told_s
            if quiet_s >= QUIET_S:
                yield self._here()
            else:
                await self._tail.moved(number, QUIET_S - quiet_s)


def _gap(cursor: Cursor, mark: Mark, from_ms: int) -> Told:
    since, until = (
        datetime.fromtimestamp(ms / 1000, UTC)
        for ms in (from_ms, max(mark.at_ms - KEPT_S * 1000, from_ms))
    )
    return Told(cursor, "gap", Gap(since=since, until=until))

"""What happened to jobs, in an order that can be gone on from, and with nothing left out.

Transactions commit in another order than they began in. So where a reader has got to is no number
but what a snapshot of Postgres sees: a `Mark`. What happened between two marks is what the later
one sees and the earlier one does not, also where it was written long before. It is told in the
order of its `Place`, which stays what it is for as long as history is kept.

    Mark, Cursor   where a reader is; `write_cursor` and `read_cursor` make texts of them
    mark           what can be seen now
    happenings     what lies between two marks, a page at a time

No reader scans further back than it must: a mark knows when each transaction that was open began,
at the latest, and only those that have ended since are looked for.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, NamedTuple
from uuid import UUID

import msgspec
from msgspec import Meta

from outbox.message import ID_EPOCH_MS, accepted_ms
from outbox.store.pool import EVERY_TENANT, Connection, Database, fetch, fetch_one

KEPT_S = 7 * 86_400
"""For so long history can be followed by time (07_retention.sql)."""
OPEN_S_MAX = 3_600
"""A transaction that was open already when following began is believed to be no older."""
JOBS_LOOKED_AT_MAX = 5_000
OUTCOMES_MAX = 500

Natural = Annotated[int, Meta(ge=0, le=2**62)]


class Place(NamedTuple):
    """The order of what lies between two marks: what was enqueued in a second comes first."""

    second: int
    kind: int  # 0: enqueued, 1: written to history, or an attempt's progress
    id: int
    rank: int


class Mark(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a snapshot sees: all below `xmax` but what was open, [(xid, began after, in ms)…].

    All from `xmax` on began after `at_ms`.
    """

    xmax: Natural
    at_ms: Natural
    open: Annotated[tuple[tuple[Natural, Natural], ...], Meta(max_length=5_000)] = ()

    @property
    def snapshot(self) -> str:
        """The pg_snapshot."""
        xids = sorted(xid for xid, _ in self.open)
        return f"{xids[0] if xids else self.xmax}:{self.xmax}:{','.join(map(str, xids))}"

    def to(self, snapshot: str, at_ms: int) -> Mark:
        """Return a later mark; whatever is new in it began after this one."""
        _, xmax, xids = snapshot.split(":")
        began = dict(self.open)
        still_open = (int(xid) for xid in xids.split(",") if xid)
        return Mark(
            int(xmax), at_ms, tuple((xid, began.get(xid, self.at_ms)) for xid in still_open)
        )

    def new_from_ms(self, seen: Mark) -> int | None:
        """Return when the oldest began that `seen` sees and this mark does not; None: nothing."""
        still_open = {xid for xid, _ in seen.open}
        began = [began_ms for xid, began_ms in self.open if xid not in still_open]
        if seen.xmax > self.xmax:
            began.append(self.at_ms)
        return min(began, default=None)


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Behind a mark; or on the way from it to `seen`, behind `place`."""

    before: Mark
    seen: Mark | None = None
    place: tuple[Natural, Natural, Natural, Natural] | None = None


class Happening(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to a job. `status` is history's, ENQUEUED or PROGRESS; None: gone.

    `done` of `total`, and `note`, are a running attempt's progress.
    """

    id: int
    second: datetime | None
    rank: int
    at: datetime
    status: str | None
    terminal: bool | None
    job_id: UUID | None
    tenant_id: str | None
    queue: str | None
    channel: str | None
    template_code: str | None
    user_id: str | None
    event_id: str | None
    campaign_id: str | None
    test: bool | None
    series: int | None
    attempt: int | None
    provider: str | None
    error_class: str | None
    error_code: str | None
    duration_ms: int | None
    next_attempt_at: datetime | None
    done: float | None = None
    total: float | None = None
    note: str | None = None

    @property
    def place(self) -> Place:
        """Where it stands."""
        if self.second is None:
            return Place(_second_of(self.id), 0, self.id, 0)
        return Place(int(self.second.timestamp()), 1, self.id, self.rank)


class _Looked(Happening, frozen=True, kw_only=True):
    """A row of stream_jobs: how far it looked, and a job, unless its status is null."""

    reached: int | None
    more: bool


class _Turn(msgspec.Struct):
    at: datetime


class _Stand(msgspec.Struct):
    snapshot: str


def write_cursor(cursor: Cursor) -> str:
    """Return it as a text of letters, digits, `-` and `_`."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).rstrip(b"=").decode()


def read_cursor(text: str) -> Cursor | None:
    """Return what `write_cursor` wrote; None for what it never did."""
    try:
        told = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = msgspec.msgpack.decode(told, type=Cursor)
    except (binascii.Error, ValueError):
        return None
    return cursor if (cursor.seen is None) == (cursor.place is None) else None


async def mark(database: Database, since: Mark | None) -> Mark:
    """Return what can be seen now. `since`: the mark before, which knows what was open then.

    Raises StoreUnavailable.
    """
    async with database.transaction(EVERY_TENANT) as connection:
        turn = await fetch_one(connection, _Turn, "stream_turn", {})
    async with database.transaction(EVERY_TENANT, read_only=True) as connection:
        stand = await fetch_one(connection, _Stand, "stream_mark", {})
    assert turn is not None
    assert stand is not None
    at_ms = int(turn.at.timestamp() * 1000)
    return (since or Mark(0, at_ms - OPEN_S_MAX * 1000)).to(stand.snapshot, at_ms)


async def happenings(
    database: Database, sees: str, before: Mark, seen: Mark, after: Place | None, *, from_ms: int
) -> AsyncIterator[Happening]:
    """Yield what lies between two marks, in order, behind `after`. Raises StoreUnavailable."""
    jobs = _Jobs(database, sees, before, seen, after, from_ms)
    outcomes = _Outcomes(database, sees, before, seen, after, from_ms)
    progress = _Progress(database, sees, before, seen, after, from_ms)
    sources: tuple[_Source, ...] = (jobs, outcomes, progress)
    while True:
        heads = [(head.place, source) for source in sources if (head := await source.head())]
        if not heads:
            return
        _, first = min(heads, key=lambda head: head[0])
        yield first.pages.pop()


class _Source:
    """One of them, a page at a time. `pages` has the rest of the page, the next one last."""

    name: str

    def __init__(self, database: Database, sees: str, before: Mark, seen: Mark) -> None:
        self.pages: list[Happening] = []
        self.more = True
        self._database = database
        self._sees = sees
        self._parameters: dict[str, object] = {"before": before.snapshot, "seen": seen.snapshot}

    async def head(self) -> Happening | None:
        """Return what comes next; None: nothing does."""
        while self.more and not self.pages:
            async with self._database.transaction(self._sees, read_only=True) as connection:
                self.pages = await self._read(connection)
            self.pages.reverse()
        return self.pages[-1] if self.pages else None

    async def _read(self, connection: Connection) -> list[Happening]:
        raise NotImplementedError


class _Jobs(_Source):
    def __init__(
        self,
        database: Database,
        sees: str,
        before: Mark,
        seen: Mark,
        after: Place | None,
        from_ms: int,
    ) -> None:
        super().__init__(database, sees, before, seen)
        self._after_id = _id_from(from_ms) - 1
        if after is not None:
            behind = after.id if after.kind == 0 else _id_from((after.second + 1) * 1000 + 1) - 1
            self._after_id = max(self._after_id, behind)

    async def _read(self, connection: Connection) -> list[Happening]:
        rows = await fetch(
            connection,
            _Looked,
            "stream_jobs",
            self._parameters | {"after": self._after_id, "rows_max": JOBS_LOOKED_AT_MAX},
        )
        self.more = rows[0].more
        self._after_id = rows[0].reached or self._after_id
        return [row for row in rows if row.status is not None]


class _Outcomes(_Source):
    name = "stream_outcomes"

    def __init__(
        self,
        database: Database,
        sees: str,
        before: Mark,
        seen: Mark,
        after: Place | None,
        from_ms: int,
    ) -> None:
        super().__init__(database, sees, before, seen)
        # A second's rows were written at some time within it; one more for what took its time.
        self._after = (from_ms // 1000 - 1, -1, -1)
        if after is not None:
            behind = (after.second, after.id, after.rank) if after.kind else (after.second, -1, -1)
            self._after = max(self._after, behind)

    async def _read(self, connection: Connection) -> list[Happening]:
        second, last_id, rank = self._after
        at = datetime.fromtimestamp(second, UTC)
        rows = await fetch(
            connection,
            Happening,
            self.name,
            self._parameters
            | {
                "from_at": at,
                "after_second": at,
                "after_id": last_id,
                "after_rank": rank,
                "rows_max": OUTCOMES_MAX,
            },
        )
        self.more = len(rows) == OUTCOMES_MAX
        if rows:
            last = rows[-1].place
            self._after = (last.second, last.id, last.rank)
        return rows


class _Progress(_Outcomes):
    """The last report of each attempt that runs: those before it are kept nowhere."""

    name = "stream_progress"


def _id_from(at_ms: int) -> int:
    return max(at_ms - ID_EPOCH_MS, 0) << 22


def _second_of(job: int) -> int:
    # An id's millisecond is rounded; one is taken off, so that no outcome goes before its job.
    return (accepted_ms(job) - 1) // 1000

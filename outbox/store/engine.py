"""The engine's statements: claim, record, heartbeat, rescue. Each is one round trip.

Every function takes an asynchronous psycopg connection in autocommit mode and lets psycopg's
OperationalError out: the dispatcher decides what a lost connection means.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, NewType, TypeAlias
from uuid import UUID

import msgspec
import psycopg

from outbox.message import EntryId, Epoch, LaneId, Lease, LeaseNo
from outbox.outcome import (
    AddressMoved,
    AlsoTo,
    ChainedJob,
    Effect,
    InboxRow,
    ReceiptExpected,
    SinkRow,
)
from outbox_sql import query

Connection: TypeAlias = psycopg.AsyncConnection[tuple[object, ...]]
Version = NewType("Version", int)

CRASHES_MAX = 32_767
FLOOR_BOTTOM: tuple[str, int] = ("-infinity", 0)


class Claimed(msgspec.Struct, frozen=True, gc=False):
    """An entry that this dispatcher holds a lease on, with the facts of its job.

    `attempt` counts the attempt that the claim makes possible. `job_json` is the job as its
    producer wrote it. All times are the database's.
    """

    id: EntryId
    lane_id: LaneId
    lease_no: LeaseNo
    priority: int
    series: int
    attempt: int
    attempts_max: int | None
    crashes: int
    available_at: datetime
    expires_at: datetime | None
    claimed_at: datetime
    job_id: UUID
    tenant_id: str
    queue: str
    channel: str | None
    created_at: datetime
    traceparent: str | None
    test: bool
    job_json: str
    epoch: Epoch

    @property
    def lease(self) -> Lease:
        """Return which claim of the entry this is."""
        return self.id, self.lease_no


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One lane's part of a claim: room for how many, and a floor for each priority.

    A floor is `(available_at as text, id)`: the claim starts right behind it.
    """

    lane_id: LaneId
    room: int
    urgent: tuple[str | datetime, int] = FLOOR_BOTTOM
    high: tuple[str | datetime, int] = FLOOR_BOTTOM
    normal: tuple[str | datetime, int] = FLOOR_BOTTOM
    low: tuple[str | datetime, int] = FLOOR_BOTTOM


class Upcoming(msgspec.Struct, frozen=True):
    """The first entry that waits in a lane and a priority. `now` is the database's time."""

    lane_id: LaneId
    priority: int
    available_at: datetime
    id: EntryId
    now: datetime


class Expired(msgspec.Struct, frozen=True):
    """How many entries have ended, and which `expires_at` has been looked at so far."""

    ended: int
    reached: datetime


class Recorded(msgspec.Struct, kw_only=True, omit_defaults=True, gc=False):
    """One outcome, ready to be stored. `op`: end the entry, put it back for later, or release it.

    `content` is base64, `content_sha256` hex. `effects` run where the fence still matched.
    """

    id: int
    lease_no: int
    epoch: int
    op: Literal["end", "again", "release"]
    status: str | None = None
    series: int
    attempt: int
    next_attempt: int | None = None
    next_lane: int | None = None
    next_at: datetime | None = None
    waits: int | None = None
    tenant_id: str
    started_at: datetime | None = None
    finished_at: datetime | None = None
    duration_ms: int | None = None
    provider: str | None = None
    provider_message_id: str | None = None
    recipient: str | None = None
    subject: str | None = None
    locale: str | None = None
    content_sha256: str | None = None
    content: str | None = None
    template_version: int | None = None
    error_class: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    dead_reason: str | None = None


class Histogram(msgspec.Struct, kw_only=True):
    """A lane's attempts: counts per bucket (outbox.telemetry) of durations, and of due → started.

    `arrivals` are those that sent a job: from when it might first be sent, until it was.
    `attempts` counts them by provider, outcome and error class; '' is none.
    """

    lane_id: int
    durations: list[int]
    pickups: list[int]
    arrivals: list[int]
    pickup_ms_sum: int = 0
    attempts: list[tuple[str, str, str, int]] = msgspec.field(default_factory=list)


class Suppression(msgspec.Struct, frozen=True, kw_only=True):
    """An effect of ours: send nothing more to this address on this channel."""

    channel: str
    address: str
    code: str
    reason: str


class EndpointGone(msgspec.Struct, frozen=True, kw_only=True):
    """An effect of ours: this webhook endpoint answered 410."""

    endpoint_id: str
    reason: str


StoreEffect: TypeAlias = Effect | Suppression | EndpointGone


class ProgressReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far a running attempt has come: `done` of `total`."""

    id: int
    lease_no: int
    tenant_id: str
    done: float
    total: float
    note: str | None


class Unexpected(msgspec.Struct, frozen=True):
    """An outcome that was not stored as it was meant: its lease had moved on, or a cancel won.

    `repeated`: it is late because it had been stored before; nothing is wrong with it.
    `ordered`: it ended at the head of an ordering_key, whose next job is due now. `erased`: its
    recipient was erased meanwhile, so its effects are left out.
    """

    id: EntryId
    lease_no: LeaseNo
    late: bool
    cancelled: bool
    repeated: bool
    ordered: bool = False
    erased: bool = False

    @property
    def refused(self) -> bool:
        """Whether anything was out of order at all."""
        return self.late or self.cancelled


class Beat(msgspec.Struct, frozen=True):
    """What a heartbeat learned. `alive` False: this epoch is fenced, drop everything."""

    alive: bool
    version: Version
    newest_lane: int | None
    to_rescue: list[Epoch]
    now: datetime
    alive_count: int
    gaps: bool
    replays: bool
    next_fire: datetime | None
    alerts_due: bool
    destinations: int
    post_revision: int


class Lane(msgspec.Struct, frozen=True):
    """A lane as the dispatcher sees it. `scope` is empty but for a narrower hold."""

    lane_id: LaneId
    tenant_id: str
    queue: str
    scope: str
    paused: bool
    held: bool
    probe_at: datetime | None
    weight: int = 1
    concurrency_max: int | None = None
    is_rated: bool = False


async def claim(
    connection: Connection,
    asks: Sequence[Ask],
    *,
    epoch: Epoch,
    lease_s: float,
    suspects: bool = True,
) -> list[Claimed]:
    """Claim due entries, at most `ask.room` of each lane, highest priority first.

    Without `suspects`, entries that a dispatcher has died with are left alone.
    """
    cursor = await connection.cursor(binary=True).execute(
        query("claim"),
        {
            **_floors_of(asks),
            "rooms": _array(ask.room for ask in asks),
            "epoch": epoch,
            "lease_s": lease_s,
            "crashes_max": CRASHES_MAX if suspects else 0,
        },
        prepare=True,
    )
    rows = await cursor.fetchall()
    return [Claimed(*row, epoch) for row in rows]  # type: ignore[arg-type,call-arg]


def _floors_of(asks: Sequence[Ask]) -> dict[str, str]:
    return {
        "lane_ids": _array(ask.lane_id for ask in asks),
        "urgent_at": _array(f'"{ask.urgent[0]}"' for ask in asks),
        "urgent_id": _array(ask.urgent[1] for ask in asks),
        "high_at": _array(f'"{ask.high[0]}"' for ask in asks),
        "high_id": _array(ask.high[1] for ask in asks),
        "normal_at": _array(f'"{ask.normal[0]}"' for ask in asks),
        "normal_id": _array(ask.normal[1] for ask in asks),
        "low_at": _array(f'"{ask.low[0]}"' for ask in asks),
        "low_id": _array(ask.low[1] for ask in asks),
    }


_encode = msgspec.json.Encoder().encode


async def record(
    connection: Connection,
    outcomes: Sequence[Recorded],
    histograms: Sequence[Histogram],
    effects: Sequence[tuple[Recorded, Sequence[StoreEffect]]],
    *,
    epoch: Epoch,
) -> list[Unexpected]:
    """Store outcomes under their fences, and the effects of those whose fence matched.

    One transaction. Storing the same outcomes again changes nothing.
    """
    parameters = {
        "outcomes": _encode(outcomes).decode(),
        "histograms": _encode(histograms).decode(),
        "epoch": epoch,
    }
    if not effects:
        cursor = await connection.execute(query("record"), parameters, prepare=True)
        return [Unexpected(*row) for row in await cursor.fetchall()]  # type: ignore[arg-type]
    async with connection.transaction():
        cursor = await connection.execute(query("record"), parameters, prepare=True)
        unexpected = [Unexpected(*row) for row in await cursor.fetchall()]  # type: ignore[arg-type]
        without = {(u.id, u.lease_no) for u in unexpected if u.refused or u.erased}
        stored = [
            (outcome, effect)
            for outcome, outcome_effects in effects
            if (outcome.id, outcome.lease_no) not in without
            for effect in outcome_effects
        ]
        await _run_effects(connection, stored)
    return unexpected


async def _run_effects(
    connection: Connection, stored: Sequence[tuple[Recorded, StoreEffect]]
) -> None:
    inbox = [_effect_row(o, e) for o, e in stored if isinstance(e, InboxRow)]
    sink = [_effect_row(o, e) for o, e in stored if isinstance(e, SinkRow)]
    if inbox:
        await connection.execute(query("effect_inbox"), {"rows": _encode(inbox).decode()})
    if sink:
        await connection.execute(query("effect_sink"), {"rows": _encode(sink).decode()})
    gone = [_effect_row(o, e) for o, e in stored if isinstance(e, Suppression)]
    if gone:
        await connection.execute(query("effect_suppress"), {"rows": _encode(gone).decode()})
    moved = [_effect_row(o, e) for o, e in stored if isinstance(e, AddressMoved)]
    if moved:
        await connection.execute(query("effect_moved"), {"rows": _encode(moved).decode()})
    also = [_effect_row(o, e) for o, e in stored if isinstance(e, AlsoTo)]
    if also:
        await connection.execute(query("effect_also"), {"rows": _encode(also).decode()})
    closed = [_effect_row(o, e) for o, e in stored if isinstance(e, EndpointGone)]
    if closed:
        await connection.execute(query("effect_endpoint_gone"), {"rows": _encode(closed).decode()})
    told_later = [_effect_row(o, e) for o, e in stored if isinstance(e, ReceiptExpected)]
    if told_later:
        await connection.execute(query("effect_receipt"), {"rows": _encode(told_later).decode()})
    for outcome, effect in stored:
        if isinstance(effect, ChainedJob):
            await connection.execute(
                "select from outbox.enqueue_many_v1(array[%s::jsonb], %s, fill_created => true)",
                (effect.job_json, outcome.tenant_id),
            )


def _effect_row(
    outcome: Recorded,
    effect: InboxRow
    | SinkRow
    | AddressMoved
    | AlsoTo
    | Suppression
    | EndpointGone
    | ReceiptExpected,
) -> dict[str, object]:
    fields: dict[str, object] = msgspec.structs.asdict(effect)
    return fields | {"id": outcome.id, "series": outcome.series, "tenant_id": outcome.tenant_id}


async def register(
    connection: Connection,
    *,
    epoch: Epoch,
    name: str,
    version: str,
    pid: int,
    queues: list[str] | None,
    lease_s: float,
    handlers: Sequence[str] = (),
    locks: bool = True,
    schema_revision: int = 0,
) -> None:
    """Make the dispatcher's row, and with `locks` take the session's advisory lock on the epoch.

    `handlers`: what it can deliver, as `channel:NAME` and `queue:NAME`. Behind a pooler the lock
    would outlive us on a connection that others use. `schema_revision`: the newest that it knows.
    """
    if locks:
        await connection.execute("select pg_advisory_lock(%s)", (epoch,))
    await connection.execute(
        "insert into outbox.dispatcher"
        " (epoch, name, version, pid, queues, lease_s, handlers, locks, schema_revision)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (epoch, name, version, pid, queues, lease_s, list(handlers), locks, schema_revision),
    )


async def heartbeat(connection: Connection, *, epoch: Epoch, seen_version: Version) -> Beat:
    """Say that this dispatcher lives; fence those that don't."""
    cursor = await connection.execute(
        query("heartbeat"), {"epoch": epoch, "seen_version": seen_version}, prepare=True
    )
    row = await cursor.fetchone()
    assert row is not None
    return Beat(*row)  # type: ignore[arg-type]


async def acknowledge(connection: Connection, *, epoch: Epoch, seen_version: Version) -> None:
    """Tell at once that everything up to `seen_version` holds here (a pause waits for it)."""
    await connection.execute(
        "update outbox.dispatcher set seen_version = %s, heartbeat_at = clock_timestamp()"
        " where epoch = %s and not fenced",
        (seen_version, epoch),
    )


async def load_lanes(connection: Connection) -> tuple[Version, int, list[Lane]]:
    """Return the version, that of tenants and providers, and all lanes as they stand for it."""
    cursor = await connection.execute(query("lanes"), prepare=True)
    rows = await cursor.fetchall()
    lanes = [Lane(*row[2:]) for row in rows if row[2] is not None]  # type: ignore[arg-type]
    return Version(int(str(rows[0][0]))), int(str(rows[0][1])), lanes


async def next_due(connection: Connection) -> list[Upcoming]:
    """Return where the first entry waits in each lane and priority that has any."""
    cursor = await connection.execute(query("next_due"), prepare=True)
    return [Upcoming(*row) for row in await cursor.fetchall()]  # type: ignore[arg-type]


async def next_due_near(connection: Connection, asks: Sequence[Ask]) -> list[Upcoming]:
    """Return where the first entry waits behind the floors of these lanes (`room` is ignored)."""
    parameters = _floors_of(asks)
    cursor = await connection.execute(query("next_due_near"), parameters, prepare=True)
    return [Upcoming(*row) for row in await cursor.fetchall()]  # type: ignore[arg-type]


async def rescue(
    connection: Connection, *, dead: Sequence[Epoch], epoch: Epoch, limit: int = 500
) -> list[LaneId]:
    """Take back entries of dead epochs and with leases that ran out; return their lanes."""
    cursor = await connection.execute(
        query("rescue"), {"epochs": list(dead), "epoch": epoch, "limit": limit}
    )
    return [LaneId(int(str(row[1]))) for row in await cursor.fetchall()]


async def mark_rescued(connection: Connection, dead: Sequence[Epoch]) -> None:
    """Note that nothing is left of these epochs, so that nobody looks for them again."""
    await connection.execute(
        "update outbox.dispatcher as d set rescued_at = clock_timestamp()"
        " where d.epoch = any(%s) and d.fenced and d.rescued_at is null"
        " and not exists (select from outbox.entry as e where e.claimed_by = d.epoch)",
        (list(dead),),
    )


async def retire(connection: Connection, *, epoch: Epoch) -> None:
    """Leave: nothing is in flight any more. The row goes; its lock ends with the connection."""
    await connection.execute("delete from outbox.dispatcher where epoch = %s", (epoch,))
    await connection.execute("delete from outbox.lane_share where epoch = %s", (epoch,))


async def expire(
    connection: Connection, *, epoch: Epoch, limit: int = 500, after: datetime | None = None
) -> Expired:
    """End waiting entries whose `expires_at` has passed, at `after` or later."""
    cursor = await connection.execute(
        query("expire"), {"epoch": epoch, "limit": limit, "after": after or "-infinity"}
    )
    row = await cursor.fetchone()
    assert row is not None
    return Expired(*row)  # type: ignore[arg-type]


async def expire_holds(
    connection: Connection, *, epoch: Epoch, hold_max_s: float, limit: int = 500
) -> int:
    """End what was held for longer than `hold_max_s`; return how many."""
    cursor = await connection.execute(
        query("hold_expire"), {"epoch": epoch, "hold_max_s": hold_max_s, "limit": limit}
    )
    return _count(await cursor.fetchone())


async def renew(
    connection: Connection,
    leases: Sequence[Lease],
    *,
    epoch: Epoch,
    lease_s: float,
) -> set[EntryId]:
    """Extend running attempts' leases; return the ids whose lease still stood."""
    cursor = await connection.execute(
        query("renew"),
        {**_by_lease(leases), "epoch": epoch, "lease_s": lease_s},
    )
    return {EntryId(int(str(row[0]))) for row in await cursor.fetchall()}


async def report_progress(
    connection: Connection, reports: Sequence[ProgressReport], *, epoch: Epoch
) -> set[EntryId]:
    """Note how far running attempts have come; return the ids whose lease still stood."""
    cursor = await connection.execute(
        query("progress"), {"reports": _encode(reports).decode(), "epoch": epoch}
    )
    return {EntryId(int(str(row[0]))) for row in await cursor.fetchall()}


async def forget_progress(connection: Connection, leases: Sequence[Lease]) -> None:
    """Forget what these attempts said: they are over."""
    await connection.execute(query("progress_over"), _by_lease(leases))


async def adopt(
    connection: Connection, known: Sequence[Lease], *, old: Epoch, new: Epoch
) -> set[Lease]:
    """Carry `known` claims of this process's former epoch over to its new one; return which.

    What that epoch had claimed besides (a claim whose reply was lost, a prefetch that never
    started) is given back, and the epoch's row goes.
    """
    async with connection.transaction():
        parameters = {**_by_lease(known), "old": old, "new": new}
        cursor = await connection.execute(query("adopt"), parameters)
        adopted = {
            (EntryId(int(str(entry_id))), LeaseNo(int(str(lease_no))))
            for entry_id, lease_no in await cursor.fetchall()
        }
        await connection.execute(query("release_orphans"), parameters)
        # What it runs still needs its places.
        await connection.execute(
            "update outbox.lane_share set epoch = %(new)s where epoch = %(old)s"
            " and exists (select from outbox.dispatcher as d"
            "             where d.epoch = %(old)s and d.rescued_at is null)",
            parameters,
        )
        await retire(connection, epoch=old)
    return adopted


async def release_orphans(connection: Connection, known: Sequence[Lease], *, epoch: Epoch) -> int:
    """Give back what this epoch has claimed and is not in `known`; return how many."""
    cursor = await connection.execute(query("release_orphans"), {**_by_lease(known), "old": epoch})
    return cursor.rowcount


def _by_lease(leases: Sequence[Lease]) -> dict[str, list[int]]:
    """Return what statements join with: an array of entries and one of lease numbers."""
    return {
        "ids": [entry_id for entry_id, _ in leases],
        "lease_nos": [lease_no for _, lease_no in leases],
    }


async def handled_queues(connection: Connection) -> set[str]:
    """Return the queues that some process has a payload handler for."""
    cursor = await connection.execute("select name from outbox.handler where kind = 'queue'")
    return {str(row[0]) for row in await cursor.fetchall()}


async def pause_queues(connection: Connection, queues: Sequence[str], *, actor: str) -> None:
    """Pause whole queues, for all tenants."""
    await connection.execute(
        "select outbox.set_paused(q, null, true, %s) from unnest(%s::text[]) as q",
        (actor, list(queues)),
    )


async def roll_up(connection: Connection, *, limit: int = 20_000) -> int:
    """Fold old seconds of statistics into minutes and totals; return how many rows."""
    cursor = await connection.execute(query("roll_up"), {"limit": limit})
    return _count(await cursor.fetchone())


async def close_gaps(connection: Connection, *, hold_max_s: float, limit: int = 500) -> int:
    """Let ordering_keys go on that could not at the end of their head; return how many."""
    cursor = await connection.execute(
        "select outbox.close_gaps(%s, %s)", (limit, hold_max_s), prepare=True
    )
    return _count(await cursor.fetchone())


async def prune_dedup(connection: Connection, *, limit: int = 500) -> int:
    """Forget dedup_keys whose window is over; return how many."""
    cursor = await connection.execute("select outbox.prune_dedup(%s)", (limit,))
    return _count(await cursor.fetchone())


async def miss_receipts(connection: Connection, *, overdue_s: float, limit: int) -> int:
    """Mark what no provider told us about for so long; return how many."""
    cursor = await connection.execute("select outbox.miss_receipts(%s, %s)", (overdue_s, limit))
    return _count(await cursor.fetchone())


async def hold_lane(
    connection: Connection,
    *,
    tenant_id: str,
    queue: str,
    scope: str,
    code: str,
    reason: str,
    probe_s: float | None,
) -> LaneId:
    """Hold a lane, or a scope of it; return the lane where its entries wait.

    `probe_s` None: nobody probes it.
    """
    cursor = await connection.execute(
        "select outbox.hold_lane(%s, %s, %s, %s, %s, %s)",
        (tenant_id, queue, scope, code, reason, probe_s),
    )
    return LaneId(_count(await cursor.fetchone()))


async def end_hold(connection: Connection, lane_id: LaneId) -> None:
    """Open a held lane again."""
    await connection.execute("select outbox.end_hold(%s)", (lane_id,))


async def take_probe(connection: Connection, lane_id: LaneId, *, lease_s: float) -> bool:
    """Return whether this dispatcher may probe the held lane now."""
    parameters = {"lane_id": lane_id, "lease_s": lease_s}
    cursor = await connection.execute(query("take_probe"), parameters)
    return await cursor.fetchone() is not None


async def end_probe(connection: Connection, lane_id: LaneId) -> None:
    """Note that a probe told nothing about the hold, so that the next one need not wait for it."""
    await connection.execute(
        "update outbox.lane set probe_until = null where lane_id = %s", (lane_id,)
    )


async def ring(connection: Connection, lane_ids: Sequence[LaneId]) -> None:
    """Wake the other dispatchers for these lanes."""
    await connection.execute("select outbox.ring(%s)", (list(lane_ids),))


def _array(elements: Iterable[object]) -> str:
    """Return an array as Postgres reads it, at a tenth of what it costs psycopg to find its type.

    For numbers and quoted times alone.
    """
    return f"{{{','.join(map(str, elements))}}}"


def _count(row: tuple[object, ...] | None) -> int:
    assert row is not None
    return int(str(row[0]))

"""What is limited over the whole fleet: places in a lane, tokens of a lane or a destination."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec
import psycopg
from psycopg.rows import TupleRow

from outbox.errors import Fault, LimitRefused, NoSuchQueue, NotPermitted
from outbox.message import Epoch, LaneId
from outbox.store import queues
from outbox.store.pool import fetch, fetch_one
from outbox_sql import query


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """What a dispatcher asks for: of a lane, or of a destination (then `lane_id` is None).

    `in_use`: places that it has taken; `wanted`: how many jobs more it would claim now; `back`:
    tokens that it did not need (negative: it took more than it had).
    """

    lane_id: LaneId | None = None
    destination: str | None = None
    in_use: int = 0
    wanted: int = 0
    back: float = 0.0


class Leased(msgspec.Struct, frozen=True):
    """What it got: all the places it has now, and new tokens; None where there is no limit.

    `wait_s`: after how long it is worth asking for more tokens.
    """

    lane_id: LaneId | None
    destination: str | None
    places: int | None
    tokens: int | None
    wait_s: float


class Destination(msgspec.Struct, frozen=True):
    """A host, an endpoint or a provider that has a rate, is closed for so long, or is watched.

    `is_open`: its breaker is open, or half open once `closed_s` are over.
    """

    name: str
    is_rated: bool
    closed_s: float
    is_open: bool


async def lease(
    connection: psycopg.AsyncConnection[TupleRow], wants: Sequence[Want], *, epoch: Epoch
) -> list[Leased]:
    """Lease parts of limits: one round trip for all of them."""
    cursor = await connection.execute(
        query("lease_limits"),
        {
            "epoch": epoch,
            "lane_ids": [want.lane_id for want in wants],
            "destinations": [want.destination for want in wants],
            "in_use": [want.in_use for want in wants],
            "wanted": [want.wanted for want in wants],
            "back": [want.back for want in wants],
        },
        prepare=True,
    )
    return [Leased(*row) for row in await cursor.fetchall()]


async def load_destinations(
    connection: psycopg.AsyncConnection[TupleRow],
) -> list[Destination]:
    """Return every destination that is limited or paused now."""
    cursor = await connection.execute(query("destinations"), prepare=True)
    return [Destination(*row) for row in await cursor.fetchall()]


async def pause_destination(
    connection: psycopg.AsyncConnection[TupleRow], name: str, pause_s: float
) -> None:
    """Let no dispatcher talk to a destination for so long, and tell the others."""
    await connection.execute("select outbox.pause_destination(%s, %s)", (name, pause_s))


class Health(msgspec.Struct, frozen=True):
    """What the last minute's attempts of one dispatcher came to."""

    name: str
    good: int
    bad: int


async def report_destinations(
    connection: psycopg.AsyncConnection[TupleRow], told: Sequence[Health], *, epoch: Epoch
) -> None:
    """Tell how destinations in trouble have been; the store opens their breakers."""
    await connection.execute(
        "select outbox.report_destinations(%s, %s, %s, %s)",
        (
            epoch,
            [health.name for health in told],
            [health.good for health in told],
            [health.bad for health in told],
        ),
    )


async def settle_destination(
    connection: psycopg.AsyncConnection[TupleRow], name: str, *, well: bool
) -> None:
    """Tell how the probe of a half-open breaker went."""
    await connection.execute("select outbox.settle_destination(%s, %s)", (name, well))


async def scope_lane(
    connection: psycopg.AsyncConnection[TupleRow], *, tenant_id: str, queue: str, scope: str
) -> LaneId:
    """Return the narrower lane of a tenant's queue, made where there is none."""
    cursor = await connection.execute(
        "select outbox.scope_lane(%s, %s, %s)", (tenant_id, queue, scope)
    )
    row = await cursor.fetchone()
    assert row is not None
    return LaneId(int(row[0]))


class DestinationRow(msgspec.Struct, frozen=True, kw_only=True):
    """A destination as operators see it. `good`, `bad`: attempts of the last minute."""

    name: str
    breaker: Literal["closed", "open", "half_open"]
    rate_per_s: float | None
    burst: int | None
    tokens: float | None
    paused_until: datetime | None
    opened_at: datetime | None
    open_until: datetime | None
    good: int
    bad: int
    changed_at: datetime | None


def untroubled(name: str) -> DestinationRow:
    """Return a destination of which nothing is kept: without a limit, and well."""
    return DestinationRow(
        name=name,
        breaker="closed",
        rate_per_s=None,
        burst=None,
        tokens=None,
        paused_until=None,
        opened_at=None,
        open_until=None,
        good=0,
        bad=0,
        changed_at=None,
    )


async def list_destinations(
    connection: psycopg.AsyncConnection[TupleRow], name: str | None = None
) -> list[DestinationRow]:
    """Return what is limited, paused or in trouble; nothing for who acts for one tenant alone."""
    return await fetch(connection, DestinationRow, "destination_list", {"name": name})


async def set_destination(
    connection: psycopg.AsyncConnection[TupleRow],
    name: str,
    *,
    rate_per_s: float | None,
    burst: int | None,
    resume: bool,
    actor: str,
) -> None:
    """Set a destination's rate (None: no limit); `resume` ends its pause and closes its breaker.

    Raises LimitRefused, NotPermitted.
    """
    try:
        await connection.execute(
            "select outbox.set_destination(%s, %s, %s, %s, %s)",
            (name, rate_per_s, burst, resume, actor),
        )
    except psycopg.Error as error:
        raise _refusal(error) or error from error


class LaneLimits(msgspec.Struct, frozen=True, kw_only=True):
    """A lane's limits, and what of them is used now. `places_taken` is over the whole fleet."""

    tenant_id: str
    queue: str
    weight: int
    concurrency_max: int | None
    rate_per_s: float | None
    burst: int | None
    places_taken: int
    tokens: float | None
    paused_at: datetime | None
    paused_by: str | None
    held_at: datetime | None
    hold_code: str | None
    hold_reason: str | None


async def show_lane(
    connection: psycopg.AsyncConnection[TupleRow], *, tenant: str, queue: str
) -> LaneLimits | None:
    """Return a lane; None where there is none."""
    return await fetch_one(connection, LaneLimits, "lane_show", {"tenant": tenant, "queue": queue})


async def set_lane(
    connection: psycopg.AsyncConnection[TupleRow],
    *,
    tenant: str,
    queue: str,
    weight: int,
    concurrency_max: int | None,
    rate_per_s: float | None,
    burst: int | None,
    actor: str,
) -> None:
    """Set all limits of a lane; None: no limit. Raises LimitRefused, NoSuchQueue, NotPermitted."""
    if not await queues.is_known(connection, queue):
        raise NoSuchQueue(queue)
    try:
        await connection.execute(
            "select outbox.set_lane_limits(%s, %s, %s, %s, %s, %s, %s)",
            (tenant, queue, weight, concurrency_max, rate_per_s, burst, actor),
        )
    except psycopg.Error as error:
        raise _refusal(error) or error from error


def _refusal(error: psycopg.Error) -> Exception | None:
    if error.sqlstate == "OBX01":
        detail = error.diag.message_detail or "[]"
        return LimitRefused(msgspec.json.decode(detail, type=list[Fault]))
    if error.sqlstate == "OBX03":
        return NotPermitted(error.diag.message_primary or "not permitted")
    return None

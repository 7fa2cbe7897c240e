"""What is limited over the whole fleet: places in a lane, tokens of a lane or a destination."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import psycopg
from psycopg.rows import TupleRow

from outbox.message import Epoch, LaneId
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
    """A host, an endpoint or a provider that has a rate, or that is paused for so long."""

    name: str
    is_rated: bool
    paused_s: float


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

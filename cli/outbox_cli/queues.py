"""`outbox queues`: figures, limits, pause and resume, clean."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from time import monotonic
from typing import Annotated

import typer

from outbox.store import limits
from outbox.store import queues as store
from outbox.store.pool import EVERY_TENANT, Connection, Database
from outbox.telemetry import quantile_s
from outbox_cli.acting import Why, acting
from outbox_cli.database import actor, in_database, in_transaction
from outbox_cli.exits import FAILED, Failure, say
from outbox_cli.groups import Json, Tenant, group
from outbox_cli.shown import as_object, live_counts, print_fields, print_json, print_table

SEEN_S_MAX = 10.0
"""A dispatcher that has not seen a pause by then is dead, or will be declared so."""
SEEN_POLL_S = 0.05

app = group()


class Ended(StrEnum):
    """The statuses that a job ends with."""

    SENT = "sent"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


Queue = Annotated[str, typer.Argument(metavar="QUEUE")]


@app.command("ls")
def ls(tenant: Tenant = None, json: Json = False) -> None:
    """List queues with their figures; those of ended jobs are of the last 15 minutes."""

    async def read(connection: Connection) -> list[store.QueueRow]:
        return await store.stats(connection, tenant=tenant)

    rows = in_transaction(read, tenant=tenant, read_only=True)
    if json:
        print_json(
            [
                as_object(row, without=("durations",))
                | {"processing_time_p95_ms": _p95_ms(row.durations)}
                for row in rows
            ]
        )
        return
    print_table(
        ("QUEUE", "WAITING", "ACTIVE", "DELAYED", "SENT", "FAILED", "EXPIRED", "OLDEST", "STATE"),
        (
            (
                row.queue,
                *live_counts(
                    row.estimated,
                    waiting=row.waiting,
                    active=row.active,
                    delayed=row.delayed,
                ),
                row.completed,
                row.failed,
                row.expired,
                None if row.oldest_waiting_s is None else f"{row.oldest_waiting_s:.0f} s",
                _state(row),
            )
            for row in rows
        ),
        empty="There is no queue yet.",
    )


@app.command("pause")
def pause(queue: Queue, tenant: Tenant = None, why: Why = None, json: Json = False) -> None:
    """Start nothing more in a queue; returns when every live dispatcher has seen it."""
    _set(queue, tenant, paused=True, why=why, json=json)


@app.command("resume")
def resume(queue: Queue, tenant: Tenant = None, why: Why = None, json: Json = False) -> None:
    """Let a queue go on."""
    _set(queue, tenant, paused=False, why=why, json=json)


@app.command("clean")
def clean(
    queue: Queue,
    status: Annotated[
        Ended, typer.Option(help="How the jobs ended.", show_choices=True, case_sensitive=True)
    ],
    older_than_s: Annotated[
        float, typer.Option("--older-than-s", min=0, help="How long ago they ended, in seconds.")
    ],
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 1_000,
    keep_last: Annotated[
        int | None, typer.Option(min=0, max=1_000_000, help="Keep so many of the newest.")
    ] = None,
    tenant: Tenant = None,
    why: Why = None,
    json: Json = False,
) -> None:
    """Delete ended jobs with their history and keys, the oldest first. Dead letters stay."""

    async def work(connection: Connection) -> int:
        return await store.clean(
            connection,
            queue,
            tenant=tenant,
            status=status.value,
            older_than_s=older_than_s,
            limit=limit,
            actor=actor(),
            keep_last=keep_last,
        )

    with acting("clean", tenant=tenant, why=why, queue=queue):
        deleted = in_transaction(work, tenant=tenant)
    if json:
        print_json({"queue": queue, "tenant_id": tenant, "deleted": deleted})
    else:
        say(f"{deleted} jobs are deleted.")


LaneTenant = Annotated[str, typer.Option("--tenant", help="Whose lane.")]


@app.command("lane")
def lane(queue: Queue, tenant: LaneTenant = "default", json: Json = False) -> None:
    """Show one tenant's lane of a queue: its limits, and how much of them is used."""

    async def read(connection: Connection) -> limits.LaneLimits | None:
        return await limits.show_lane(connection, tenant=tenant, queue=queue)

    _show_lane(in_transaction(read, tenant=tenant, read_only=True), json=json)


@app.command("limit")
def limit(
    queue: Queue,
    tenant: LaneTenant = "default",
    weight: Annotated[
        int, typer.Option(min=1, max=1_000, help="Its share beside other tenants.")
    ] = 1,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=100_000, help="Attempts at once, over all dispatchers."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.001, max=1_000_000, help="Claimed a second, over all.")
    ] = None,
    burst: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="So many at once after a pause.")
    ] = None,
    why: Why = None,
    json: Json = False,
) -> None:
    """Set all limits of one tenant's lane; what is left out is no limit."""

    async def work(connection: Connection) -> limits.LaneLimits | None:
        await limits.set_lane(
            connection,
            tenant=tenant,
            queue=queue,
            weight=weight,
            concurrency_max=concurrency,
            rate_per_s=rate,
            burst=burst,
            actor=actor(),
        )
        return await limits.show_lane(connection, tenant=tenant, queue=queue)

    with acting("limit", tenant=tenant, why=why, queue=queue):
        found = in_transaction(work)
    _show_lane(found, json=json)


def _show_lane(found: limits.LaneLimits | None, *, json: bool) -> None:
    if found is None:
        say("There is no such lane.")
        raise typer.Exit(FAILED)
    if json:
        print_json(found)
    else:
        print_fields(as_object(found).items())


def _set(queue: str, tenant: str | None, *, paused: bool, why: str | None, json: bool) -> None:
    async def work(database: Database) -> int:
        async with database.transaction(tenant or EVERY_TENANT) as connection:
            await _refuse_unknown(connection, queue, tenant)
            version = await store.set_paused(
                connection, queue, tenant=tenant, paused=paused, actor=actor()
            )
        deadline = monotonic() + SEEN_S_MAX
        while True:
            async with database.transaction(EVERY_TENANT, read_only=True) as connection:
                unseen = await store.unseen_by(connection, version)
            if unseen == 0 or monotonic() > deadline:
                return unseen
            await asyncio.sleep(SEEN_POLL_S)

    with acting("pause" if paused else "resume", tenant=tenant, why=why, queue=queue):
        unseen = in_database(work)
    if json:
        print_json({"queue": queue, "tenant_id": tenant, "paused": paused, "unseen_by": unseen})
    else:
        say(f"{queue} is {'paused' if paused else 'resumed'}.")
    if unseen:
        say(f"{unseen} dispatchers have not seen it within {SEEN_S_MAX:.0f} s.")
        raise typer.Exit(FAILED)


async def _refuse_unknown(connection: Connection, queue: str, tenant: str | None) -> None:
    """Raise Failure for a queue that nobody has: a typo must not leave the real one running."""
    known = await store.names(connection, tenant=tenant)
    if queue not in known:
        raise Failure(f"No queue is called {queue!r}; there are: {', '.join(known) or 'none'}.")


def _p95_ms(durations: list[int]) -> float | None:
    value = quantile_s(durations, 0.95)
    return None if value is None else value * 1000


def _state(row: store.QueueRow) -> str:
    states = ["paused"] if row.paused else []
    states += [f"{row.held} held"] if row.held else []
    states += ["no dispatcher"] if row.dispatchers == 0 and row.waiting else []
    return ", ".join(states)

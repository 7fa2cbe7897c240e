"""`outbox destinations`: hosts, endpoints and providers that are limited, paused or in trouble."""

from __future__ import annotations

from typing import Annotated

import typer

from outbox.store import limits
from outbox.store.limits import DestinationRow
from outbox.store.pool import Connection
from outbox_cli.acting import Why, acting
from outbox_cli.database import actor, in_transaction
from outbox_cli.exits import say
from outbox_cli.groups import Json, group
from outbox_cli.shown import as_object, print_fields, print_json, print_table

app = group()

Name = Annotated[str, typer.Argument(metavar="host:NAME|endpoint:ID|provider:NAME")]


@app.command("ls")
def ls(json: Json = False) -> None:
    """List them; `good` and `bad` are attempts of the last minute, counted since the first bad."""

    async def read(connection: Connection) -> list[DestinationRow]:
        return await limits.list_destinations(connection)

    rows = in_transaction(read, read_only=True)
    if json:
        print_json([as_object(row) for row in rows])
        return
    print_table(
        ("DESTINATION", "BREAKER", "RATE", "PAUSED UNTIL", "OPEN UNTIL", "GOOD", "BAD"),
        (
            (
                row.name,
                row.breaker,
                row.rate_per_s,
                row.paused_until,
                row.open_until,
                row.good,
                row.bad,
            )
            for row in rows
        ),
        empty="No destination is limited, paused or in trouble.",
    )


@app.command("limit")
def limit(
    name: Name,
    rate: Annotated[
        float | None,
        typer.Option(min=0.001, max=1_000_000, help="A second, over all dispatchers."),
    ] = None,
    burst: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="So many at once after a pause.")
    ] = None,
    why: Why = None,
    json: Json = False,
) -> None:
    """Set a destination's rate for all tenants together; what is left out is no limit."""
    _set(name, rate, burst, resume=False, why=why, json=json)


@app.command("resume")
def resume(name: Name, why: Why = None, json: Json = False) -> None:
    """End the pause that a destination asked for, and close its breaker; its rate stays."""
    _set(name, None, None, resume=True, why=why, json=json)


def _set(
    name: str,
    rate: float | None,
    burst: int | None,
    *,
    resume: bool,
    why: str | None,
    json: bool,
) -> None:
    async def work(connection: Connection) -> DestinationRow:
        if resume:
            for row in await limits.list_destinations(connection, name):
                await _store(connection, name, row.rate_per_s, row.burst, resume=True)
        else:
            await _store(connection, name, rate, burst, resume=False)
        rows = await limits.list_destinations(connection, name)
        return rows[0] if rows else limits.untroubled(name)

    with acting("resume" if resume else "limit", why=why, destination=name):
        row = in_transaction(work)
    if json:
        print_json(row)
    elif row.changed_at is None:
        say(f"{name} is not limited, paused or in trouble.")
    else:
        print_fields(as_object(row).items())


async def _store(
    connection: Connection, name: str, rate: float | None, burst: int | None, *, resume: bool
) -> None:
    await limits.set_destination(
        connection, name, rate_per_s=rate, burst=burst, resume=resume, actor=actor()
    )

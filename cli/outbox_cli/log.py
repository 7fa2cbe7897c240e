"""`outbox log`: who did what, and what was refused."""

from __future__ import annotations

from typing import Annotated

import typer

from outbox.store import operate
from outbox.store.pool import Connection
from outbox_cli.database import in_transaction
from outbox_cli.groups import Json, Tenant
from outbox_cli.shown import as_object, print_json, print_table


def log(
    actor: Annotated[str | None, typer.Option(help="By whom.")] = None,
    action: Annotated[str | None, typer.Option(help="Of what kind.")] = None,
    refused: Annotated[bool | None, typer.Option("--refused/--done")] = None,
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 50,
    json: Json = False,
) -> None:
    """List who did what, over HTTP and here, newest first."""

    async def read(connection: Connection) -> list[operate.ActionRow]:
        return await operate.actions(
            connection,
            tenant=tenant,
            actor=actor,
            action=action,
            refused=refused,
            before=None,
            limit=limit,
        )

    rows = in_transaction(read, tenant=tenant, read_only=True)
    if json:
        print_json([as_object(row, raw=("detail",), without=("id",)) for row in rows])
        return
    print_table(
        ("AT", "WHO", "WHAT", "TENANT", "JOB", "DETAIL"),
        ((r.at, r.actor, r.action, r.tenant_id, r.job_id, r.detail) for r in rows),
        empty="Nobody did anything.",
    )

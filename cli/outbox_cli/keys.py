"""`outbox keys`: API keys. A key is shown once, when it is made; the database has its hash."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer

from outbox.message import Mode
from outbox.store import catalog
from outbox.store.pool import Connection
from outbox_cli.acting import Why, acting
from outbox_cli.database import actor, in_transaction
from outbox_cli.exits import Failure
from outbox_cli.groups import Json, Tenant, group
from outbox_cli.shown import as_object, print_json, print_table

SCOPES = ("jobs:write", "jobs:read", "admin")
NAME_CHARS_MAX = 128
DAYS_MAX = 36_500

app = group()


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    tenant: Annotated[
        str, typer.Option(help="Whose jobs it may touch; `*`: everybody's.")
    ] = "default",
    scope: Annotated[
        list[str], typer.Option(help="jobs:write, jobs:read or admin; repeat it for several.")
    ] = ["jobs:write"],  # noqa: B006  (typer reads it, nobody changes it)
    expires_days: Annotated[
        int | None, typer.Option(min=1, max=DAYS_MAX, help="Days until it ends by itself.")
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="What it hands in goes to the sink alone.")
    ] = False,
    why: Why = None,
    json: Json = False,
) -> None:
    """Make a key and print it: it is shown this once."""
    scopes = list(dict.fromkeys(scope))
    unknown = [each for each in scopes if each not in SCOPES]
    if unknown:
        raise typer.BadParameter(f"no scope is called {unknown[0]!r}: {', '.join(SCOPES)}")
    if test and "admin" in scopes:
        raise typer.BadParameter("a test key manages nothing: it cannot have admin")
    mode: Mode = "test" if test else "live"
    if not name.strip() or len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise typer.BadParameter(f"a name has 1 to {NAME_CHARS_MAX} printable characters")
    if not tenant.strip() or len(tenant) > NAME_CHARS_MAX or not tenant.isprintable():
        raise typer.BadParameter(f"a tenant has 1 to {NAME_CHARS_MAX} printable characters")
    key = catalog.new_key(mode)
    ends = None if expires_days is None else datetime.now(UTC) + timedelta(days=expires_days)

    async def work(connection: Connection) -> None:
        made = await catalog.create_key(
            connection,
            key,
            name=name,
            tenant=tenant,
            scopes=scopes,
            mode=mode,
            expires_at=ends,
        )
        detail = {"key_id": str(made.key_id), "name": name, "scopes": scopes}
        await catalog.note_action(
            connection, actor=actor(), action="key.create", tenant=tenant, detail=detail
        )
        _show(key, made, json=json)

    with acting("key.create", tenant=tenant, why=why):
        in_transaction(work, make=True)


def _show(key: str, made: catalog.ApiKey, *, json: bool) -> None:
    """Print a key before it is committed: one that nobody could read must not be there."""
    try:
        if json:
            print_json({"key": key} | as_object(made))
        else:
            print(key)
        sys.stdout.flush()
    except OSError as error:
        why = "nobody reads it" if isinstance(error, BrokenPipeError) else error.strerror
        raise Failure(f"The key was not made: stdout did not take it ({why}).") from error


@app.command("ls")
def ls(tenant: Tenant = None, json: Json = False) -> None:
    """List keys, newest first."""

    async def read(connection: Connection) -> list[catalog.ApiKey]:
        return await catalog.list_keys(connection, tenant=tenant)

    rows = in_transaction(read, tenant=tenant, read_only=True)
    if json:
        print_json([as_object(row) for row in rows])
        return
    print_table(
        (
            "ID",
            "NAME",
            "PREFIX",
            "TENANT",
            "SCOPES",
            "MODE",
            "CREATED",
            "EXPIRES",
            "LAST USED",
            "REVOKED",
        ),
        (
            (
                row.key_id,
                row.name,
                row.prefix,
                row.tenant_id,
                row.scopes,
                row.mode,
                row.created_at,
                row.expires_at,
                row.last_used_at,
                row.revoked_at,
            )
            for row in rows
        ),
        empty="There is no key yet.",
    )


@app.command("revoke")
def revoke(
    key_id: Annotated[UUID, typer.Argument(metavar="ID", help="As `keys ls` shows it.")],
    why: Why = None,
    json: Json = False,
) -> None:
    """End a key; within a second nobody takes it any more."""

    async def work(connection: Connection) -> catalog.ApiKey | None:
        revoked = await catalog.revoke_key(connection, key_id, tenant=None)
        if revoked is not None:
            await catalog.note_action(
                connection,
                actor=actor(),
                action="key.revoke",
                tenant=revoked.tenant_id,
                detail={"key_id": str(key_id), "name": revoked.name},
            )
        return revoked

    with acting("key.revoke", why=why, key_id=str(key_id)):
        revoked = in_transaction(work)
        if revoked is None:
            raise Failure(f"There is no key {key_id}.")
    if json:
        print_json(as_object(revoked))

"""`outbox providers`: tenants' own providers, and new keys for their credentials."""

from __future__ import annotations

from outbox.errors import ConfigError
from outbox.sealing import Keyring
from outbox.store import catalog, endpoints, providers
from outbox.store.pool import EVERY_TENANT, Connection
from outbox.store.providers import StoredProvider
from outbox_cli.acting import Why, acting
from outbox_cli.database import actor, in_transaction, settings
from outbox_cli.exits import Failure
from outbox_cli.groups import Json, Tenant, group
from outbox_cli.shown import print_json, print_table

app = group()

_COLUMNS = ("provider_id", "tenant_id", "channel", "kind", "name", "preference", "enabled")


@app.command("ls")
def ls(tenant: Tenant = None, json: Json = False) -> None:
    """List providers, in the order in which they are asked. Credentials are never shown."""

    async def read(connection: Connection) -> list[StoredProvider]:
        return await providers.list_providers(connection, tenant=tenant)

    rows = in_transaction(read, tenant=tenant, read_only=True)
    if json:
        print_json([{name: getattr(row, name) for name in (*_COLUMNS, "key_id")} for row in rows])
        return
    print_table(
        ("ID", "TENANT", "CHANNEL", "KIND", "NAME", "PREFERENCE", "ENABLED", "KEY"),
        ([*(getattr(row, name) for name in _COLUMNS), row.key_id] for row in rows),
        empty="There is no provider of a tenant's own.",
    )


@app.command("reencrypt")
def reencrypt(why: Why = None, json: Json = False) -> None:
    """Encrypt all secrets under the first key of OUTBOX_SECRET_KEY, so that older ones can go."""
    keyring = Keyring(settings().secret_key)
    if not keyring:
        raise ConfigError("OUTBOX_SECRET_KEY is not set.")

    async def work(connection: Connection) -> tuple[int, list[str]]:
        count, closed = await providers.reseal_providers(connection, keyring)
        more, closed_too = await endpoints.reseal_endpoints(connection, keyring)
        count, closed = count + more, closed + closed_too
        await catalog.note_action(
            connection,
            actor=actor(),
            action="reencrypt",
            tenant=EVERY_TENANT,
            detail={"key_id": keyring.newest, "secrets": count},
        )
        return count, [str(each) for each in closed]

    with acting("reencrypt", why=why):
        count, closed = in_transaction(work)
    if json:
        print_json({"reencrypted": count, "unreadable": closed, "key_id": keyring.newest})
    else:
        print(f"{count} secrets are under the key {keyring.newest} now")
    if closed:
        raise Failure(f"No key of OUTBOX_SECRET_KEY opens those of {', '.join(closed)}.")

"""Where the commands find their database, and how they talk to it.

Without `OUTBOX_DATABASE_URL` that is the embedded server: started if nobody runs it, joined if
somebody does, and stopped again by whoever leaves last.
"""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import msgspec
import psycopg

from outbox.config import Config, load_config
from outbox.errors import StoreUnavailable
from outbox.store.pool import EVERY_TENANT, Connection, Database
from outbox_cli.exits import DATABASE, Failure, say
from outbox_sql import query

if TYPE_CHECKING:
    from outbox.migrate import DatabaseSettings

T = TypeVar("T")

ACQUIRE_S_MAX = 5.0
STATEMENT_S_MAX = 60.0
"""A person waits for this command, and may ask for much at once."""

LAST_REVISION = "select to_regclass('outbox.alembic_version') is not null"


@dataclass(frozen=True)
class Place:
    """A database. `admin_url` is the superuser's, where the server is ours."""

    url: str
    admin_url: str | None = None


def settings() -> Config:
    """Return the settings in force. Raises ConfigError."""
    return load_config(os.environ)


def actor() -> str:
    """Return who is at the keyboard, for the record of what operators do."""
    try:
        return f"cli:{getpass.getuser()}"[:100]
    except (KeyError, OSError):
        return f"cli:uid {os.getuid()}"


@contextlib.contextmanager
def open_place(config: Config, *, make: bool = False) -> Iterator[Place]:
    """Have the database there. `make`: an embedded one is made and migrated where it is missing.

    Raises StoreUnavailable, or Failure where there is none yet.
    """
    if config.database_url is not None:
        yield Place(config.database_url)
        return
    # A wheel that only servers need, and slow to import.
    from outbox.embedded import EmbeddedServer

    if not make and not (config.data_dir / "postgres" / "data" / "PG_VERSION").exists():
        raise Failure(
            f"There is no database in {config.data_dir} yet: start `outbox serve`, or set "
            "OUTBOX_DATABASE_URL or OUTBOX_DATA_DIR.",
            DATABASE,
        )
    with EmbeddedServer.acquire(config.data_dir) as server:
        place = Place(server.url, server.admin_url)
        if make and not is_migrated(server.admin_url):
            migrate_embedded(config, server.admin_url)
        yield place


def is_migrated(url: str) -> bool:
    """Tell whether any migration has run there: a cheap look, before alembic is imported."""
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            row = connection.execute(LAST_REVISION).fetchone()
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"Postgres cannot be reached: {first_line(error)}") from error
    return row is not None and bool(row[0])


def migrate_embedded(config: Config, admin_url: str) -> None:
    """Bring the embedded database up to date, and write the settings that it enforces itself."""
    from outbox.embedded import SERVICE_ROLE
    from outbox.migrate import migrate

    with told_of_migration(admin_url):
        migrate(admin_url, service_role=SERVICE_ROLE, settings=database_settings(config))


@contextlib.contextmanager
def told_of_migration(url: str) -> Iterator[None]:
    """Have what the block migrates written down, with what was there before and is afterwards."""
    from outbox.migrate import applied_revisions

    before = sorted(applied_revisions(url))
    yield
    after = sorted(applied_revisions(url))
    if before == after:
        return
    detail = {"before": {"revisions": before}, "after": {"revisions": after}, "via": "cli"}
    with psycopg.connect(url, connect_timeout=5) as connection:
        connection.execute("set local role outbox_owner")
        connection.execute(
            query("operator_action").encode(),
            {
                "actor": actor(),
                "action": "migrate",
                "tenant": EVERY_TENANT,
                "detail": msgspec.json.encode(detail).decode(),
            },
        )


def database_settings(config: Config) -> DatabaseSettings:
    """Return what of the settings the database enforces."""
    from outbox.migrate import DatabaseSettings

    return DatabaseSettings(
        job_bytes_max=config.job_bytes_max,
        batch_jobs_max=config.batch_jobs_max,
        retention_s=config.retention_s,
        dead_letter_retention_s=config.dead_letter_retention_s,
        timeout_s_max=config.timeout_s_max,
        template_check=config.template_check,
        default_locale=config.default_locale,
        ordering_on_failure=config.ordering_on_failure,
    )


def in_database(
    work: Callable[[Database], Awaitable[T]], *, config: Config | None = None, make: bool = False
) -> T:
    """Run `work` with the database, in an event loop of its own."""
    config = config or settings()
    # The pool logs each failed attempt to connect; the command says it once, in a sentence.
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)

    async def run(url: str) -> T:
        async with Database(
            url, size_max=2, acquire_s_max=ACQUIRE_S_MAX, statement_s_max=STATEMENT_S_MAX
        ) as database:
            return await work(database)

    with open_place(config, make=make) as place:
        return asyncio.run(run(place.url))


def in_transaction(
    work: Callable[[Connection], Awaitable[T]],
    *,
    tenant: str | None = None,
    read_only: bool = False,
    make: bool = False,
) -> T:
    """Run `work` in one transaction that sees `tenant`, or all of them."""

    async def run(database: Database) -> T:
        async with database.transaction(tenant or EVERY_TENANT, read_only=read_only) as connection:
            return await work(connection)

    return in_database(run, make=make)


async def ring(database: Database) -> None:
    """Wake the dispatchers, after a commit: without it they'd look within a second."""
    try:
        async with database.connection() as connection:
            await connection.execute("select pg_notify('outbox_bell', '')")
    except (psycopg.Error, StoreUnavailable):
        say("the dispatchers could not be woken; they look by themselves.")


def first_line(error: BaseException) -> str:
    """Return an error's first line: what follows it in psycopg's is advice."""
    return str(error).strip().partition("\n")[0]

"""`outbox serve`, `outbox api`, `outbox dispatcher`: the processes that stay."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import psycopg
import typer

from outbox.config import Config
from outbox.errors import ConfigError, StoreUnavailable
from outbox.store import catalog
from outbox.store.pool import EVERY_TENANT, Database
from outbox_cli import lifeline
from outbox_cli.database import Place, migrate_embedded, open_place, settings
from outbox_cli.exits import DATABASE, Failure, leave, say
from outbox_cli.roles import GRACE_MARGIN_S, Role

if TYPE_CHECKING:
    from outbox.embedded import EmbeddedServer

PROCESSES_MAX = 64

Queues = Annotated[
    str | None, typer.Option(help="Only these queues, separated by commas.", metavar="A,B")
]
Migrate = Annotated[
    bool, typer.Option("--migrate", help="Bring the database of OUTBOX_DATABASE_URL up to date.")
]


def serve(
    processes: Annotated[
        int, typer.Option(min=1, max=PROCESSES_MAX, help="Dispatcher processes.")
    ] = 1,
    migrate: Migrate = False,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", hidden=True, help="Stop when stdin ends.")
    ] = False,
) -> None:
    """Run the API, its page and a dispatcher, until SIGTERM or Ctrl-C.

    Prints one line, `ready http://host:port`, on stdout when it takes requests.
    """
    config = _begin("serve")
    if with_parent:
        lifeline.follow_parent(grace_s=config.leave_s + config.drain_s + 2 * GRACE_MARGIN_S)
    _require_free_port(config)
    from outbox_cli.supervisor import supervise

    roles = [Role(kind="api", number=n) for n in range(1, config.api_workers + 1)]
    roles += [Role(kind="dispatcher", number=n) for n in range(1, processes + 1)]
    with prepared(config, migrate=migrate) as (place, embedded):
        _mention_keys(config, place)
        supervise(roles, config, embedded, on_ready=lambda: _print_ready(config))


def api(migrate: Migrate = False) -> None:
    """Run the API alone."""
    config = _begin("api")
    _require_free_port(config)
    if config.api_workers > 1:
        from outbox_cli.supervisor import supervise

        roles = [Role(kind="api", number=n) for n in range(1, config.api_workers + 1)]
        with prepared(config, migrate=migrate) as (place, embedded):
            _mention_keys(config, place)
            supervise(roles, config, embedded, on_ready=lambda: _print_ready(config))
        return
    from outbox_api.server import serve as serve_api

    with prepared(config, migrate=migrate) as (place, _):
        _mention_keys(config, place)
        serve_api(config, place.url)
        leave()


def dispatcher(
    queues: Queues = None,
    processes: Annotated[
        int, typer.Option(min=1, max=PROCESSES_MAX, help="How many processes.")
    ] = 1,
    drain: Annotated[bool, typer.Option("--drain", help="Exit 0 when nothing is due.")] = False,
    start_paused: Annotated[
        bool,
        typer.Option(
            "--start-paused",
            help="Pause all queues first: for a database restored from a backup.",
        ),
    ] = False,
    migrate: Migrate = False,
) -> None:
    """Deliver what is due, without an API."""
    config = _begin("dispatcher")
    names = _queue_names(queues)
    with prepared(config, migrate=migrate) as (place, embedded):
        if processes > 1:
            from outbox_cli.supervisor import supervise

            roles = [
                Role(
                    kind="dispatcher",
                    number=number,
                    queues=names,
                    drain=drain,
                    start_paused=start_paused,
                )
                for number in range(1, processes + 1)
            ]
            supervise(roles, config, embedded, on_ready=lambda: None)
            return
        from outbox_dispatcher.process import Orders, run

        orders = Orders(
            queues=None if names is None else frozenset(names),
            drain=drain,
            start_paused=start_paused,
        )
        run(config, place.url, orders)
        leave()


@contextlib.contextmanager
def prepared(config: Config, *, migrate: bool) -> Iterator[tuple[Place, EmbeddedServer | None]]:
    """Have a migrated database there, and the embedded server where it is ours.

    The embedded one is migrated; another is only looked at, unless `migrate` says otherwise.
    Raises Failure that says what to do.
    """
    if config.database_url is None:
        from outbox.embedded import EmbeddedServer

        with EmbeddedServer.acquire(config.data_dir) as server:
            migrate_embedded(config, server.admin_url)
            _require_schema(server.admin_url)
            yield Place(server.url, server.admin_url), server
        return
    if migrate:
        from outbox_cli.migrating import migrate_database

        migrate_database(config, None)
    _require_migrated(config)
    with open_place(config) as place:
        yield place, None


def _require_migrated(config: Config) -> None:
    url = config.direct_database_url or config.database_url
    assert url is not None
    _require_schema(url)


def _require_schema(url: str) -> None:
    from outbox.migrate import objection

    if sentence := objection(url):
        raise Failure(sentence, DATABASE)


def _begin(process: str) -> Config:
    from outbox.logging_setup import configure_logging

    config = settings()
    configure_logging(level=config.log_level, log_format=config.log_format, process=process)
    return config


def _require_free_port(config: Config) -> None:
    """Refuse a port that somebody listens on, before anything is started."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((config.host, config.port))
    except OSError as error:
        raise ConfigError(
            f"OUTBOX_PORT: {config.host}:{config.port} cannot be used: {error.strerror}."
        ) from error


def _print_ready(config: Config) -> None:
    host = f"[{config.host}]" if ":" in config.host else config.host
    print(f"ready http://{host}:{config.port}", flush=True)


def _queue_names(queues: str | None) -> tuple[str, ...] | None:
    if queues is None:
        return None
    names = tuple(sorted({name.strip() for name in queues.split(",") if name.strip()}))
    if not names:
        raise ConfigError("--queues names no queue.")
    return names


def _mention_keys(config: Config, place: Place) -> None:
    """Say how to make the first key, where nobody could send a thing."""
    if not config.auth or config.admin_key is not None:
        return

    async def usable() -> bool:
        async with Database(place.url, size_max=2) as database:
            async with database.transaction(EVERY_TENANT, read_only=True) as connection:
                keys = await catalog.list_keys(connection, tenant=None)
        return any(key.revoked_at is None for key in keys)

    with contextlib.suppress(StoreUnavailable, psycopg.Error):
        if not asyncio.run(usable()):
            say(
                "there is no API key yet. Make one: outbox keys create NAME --tenant default "
                "--scope jobs:write --scope jobs:read --scope admin"
            )

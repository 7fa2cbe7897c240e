"""`outbox migrate`: bring the database up to date, or say what that would take."""

from __future__ import annotations

import sys
from time import monotonic, sleep
from typing import Annotated
from urllib.parse import unquote, urlsplit

import psycopg
import typer

from outbox.config import Config
from outbox.errors import ConfigError, StoreUnavailable
from outbox.migrate import Phase
from outbox_cli.database import (
    database_settings,
    first_line,
    open_place,
    settings,
    told_of_migration,
)
from outbox_cli.exits import FAILED, Failure, say

WAIT_S_MAX = 86_400
LOOK_AGAIN_S = 0.5


def migrate(
    sql: Annotated[
        bool, typer.Option("--sql", help="Print the schema's SQL and change nothing.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 1 if the database is not up to date.")
    ] = False,
    phase: Annotated[
        Phase,
        typer.Option(
            help="`pre`: what older processes can live with. `post`: the rest, when none runs any "
            "more; refused while an older one lives."
        ),
    ] = "all",
    wait: Annotated[
        int,
        typer.Option(
            min=0,
            max=WAIT_S_MAX,
            help="How many seconds to wait for the database to answer; with --check, for it to be "
            "migrated; before `post`, for older processes to go.",
            metavar="SECONDS",
        ),
    ] = 0,
    or_later: Annotated[
        bool,
        typer.Option(
            "--or-later",
            help="With --phase post: exit 0 too where older processes don't go. Everything works "
            "without that part; run it again when they have.",
        ),
    ] = False,
    admin_url: Annotated[
        str | None,
        typer.Option(
            help="Another login of the same database, one that may create roles and schemas. "
            "Its password is better left to PGPASSWORD or ~/.pgpass."
        ),
    ] = None,
) -> None:
    """Bring the database up to date. Safe at any time, from several places at once."""
    if or_later and (phase != "post" or check or sql):
        raise typer.BadParameter("--or-later goes with --phase post alone")
    if sql and check:
        raise typer.BadParameter("--sql and --check exclude each other")
    if sql:
        if phase != "all":
            raise typer.BadParameter("--sql prints the whole schema: it has no --phase")
        from outbox.migrate import migration_sql

        sys.stdout.write(migration_sql())
        return
    config = settings()
    if config.database_url is not None:
        url = admin_url or config.direct_database_url or config.database_url
        deadline = monotonic() + wait
        _await_database(url, deadline)
        if check:
            _check(url, phase, deadline)
            return
        if phase != "pre":
            try:
                _refuse_post_beside_older(url, deadline)
            except OlderLive as refused:
                if not or_later:
                    raise
                say(str(refused))
                return
        migrate_database(config, admin_url, phase=phase)
        done = "up to date" if phase == "all" else f"up to date as far as `{phase}` goes"
        say(f"the database is {done}.")
        return
    if admin_url is not None:
        raise ConfigError("--admin-url needs OUTBOX_DATABASE_URL: whose admin would that be?")
    with open_place(config, make=not check) as place:
        assert place.admin_url is not None
        if check:
            _check(place.admin_url, phase, 0.0)
        else:
            _migrate(place.admin_url, service_role="outbox", config=config, phase=phase)
            say(f"the embedded database in {config.data_dir} is up to date.")


def migrate_database(config: Config, admin_url: str | None, *, phase: Phase = "all") -> None:
    """Migrate the database of the settings. Raises Failure, StoreUnavailable."""
    assert config.database_url is not None
    own = config.direct_database_url or config.database_url
    role = urlsplit(config.database_url).username
    if admin_url is not None and role is None:
        raise ConfigError("OUTBOX_DATABASE_URL names no user to grant anything to.")
    _migrate(
        admin_url or own,
        service_role=unquote(role) if role is not None and admin_url is not None else None,
        config=config,
        phase=phase,
    )


def _migrate(url: str, *, service_role: str | None, config: Config, phase: Phase) -> None:
    # alembic takes longer to import than most commands take in all
    import sqlalchemy.exc

    from outbox.migrate import migrate as migrate_schema

    try:
        with told_of_migration(url):
            migrate_schema(
                url, service_role=service_role, settings=database_settings(config), phase=phase
            )
    except (sqlalchemy.exc.DBAPIError, psycopg.DatabaseError) as error:
        cause = error.orig if isinstance(error, sqlalchemy.exc.DBAPIError) else error
        told = first_line(cause or error)
        if isinstance(cause, psycopg.errors.InsufficientPrivilege):
            raise Failure(
                f"This login may not migrate ({told}): pass --admin-url with one that may create "
                "roles and schemas."
            ) from error
        if isinstance(cause, psycopg.OperationalError):
            raise StoreUnavailable(f"Postgres cannot be reached: {told}") from error
        raise Failure(f"The migration failed, and nothing was changed: {told}.") from error


def _check(url: str, phase: Phase, deadline: float) -> None:
    from outbox.migrate import missing_revisions

    while missing := missing_revisions(url, phase):
        if monotonic() >= deadline:
            say(f"not up to date, missing: {', '.join(missing)}. Run `outbox migrate`.")
            raise typer.Exit(FAILED)
        sleep(LOOK_AGAIN_S)
    say("the database is up to date.")


def _await_database(url: str, deadline: float) -> None:
    """Return when the database answers, or at the deadline: then whoever needs it will say so."""
    from outbox.migrate import missing_revisions

    while monotonic() < deadline:
        try:
            missing_revisions(url)
            return
        except StoreUnavailable:
            sleep(LOOK_AGAIN_S)


class OlderLive(Failure):
    """The `post` part is due, and has to wait for processes that don't know it."""


def _refuse_post_beside_older(url: str, deadline: float) -> None:
    """Raise OlderLive where a part that older code cannot live with is due, and such code runs."""
    from outbox.migrate import missing_revisions
    from outbox.store.revisions import older_processes

    missing = missing_revisions(url)
    due = [int(name[:4]) for name in missing if name.endswith("_post")]
    if "0001_pre" in missing or not due:
        return
    while older := older_processes(url, max(due)):
        if monotonic() >= deadline:
            raise OlderLive(
                f"Older processes live: {', '.join(older)}. Nothing was changed. Run `outbox "
                "migrate --phase pre` now, and `--phase post` when they are gone."
            )
        sleep(LOOK_AGAIN_S)

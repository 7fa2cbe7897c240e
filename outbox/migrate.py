"""Bring a database to this version's schema, and tell whether it is there.

Migrations are plain SQL (sql/outbox_sql/migrations), run by Alembic in one transaction under an
advisory lock. Two branches: `pre` is what old code can live with, `post` is for when no older
version runs any more. Needs a role that may create roles and schemas; nothing else of ours does.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Literal, TypeAlias

import psycopg
from psycopg import sql

from outbox.errors import StoreUnavailable
from outbox.store.revisions import Branch, revisions_of, too_new

# Alembic and SQLAlchemy take more than a second to import: only where there is something to do.
if TYPE_CHECKING:
    import sqlalchemy
    from alembic.config import Config as AlembicConfig

Phase: TypeAlias = Literal["all", "pre", "post"]

SERVICE_ROLES = ("outbox_producer", "outbox_api", "outbox_dispatcher", "outbox_auditor")


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings:
    """The settings that the database itself enforces, at every door alike."""

    job_bytes_max: int = 262_144
    batch_jobs_max: int = 10_000
    retention_s: int = 7_776_000
    dead_letter_retention_s: int = 15_552_000
    timeout_s_max: int = 50
    template_check: bool = True
    default_locale: str = "en"
    ordering_on_failure: Literal["pass", "hold"] = "pass"


def migrate(
    admin_url: str,
    *,
    service_role: str | None = None,
    settings: DatabaseSettings | None = None,
    phase: Phase = "all",
) -> None:
    """Apply what is missing, write `settings`, note the installed handlers, grant our roles.

    `service_role` is the login that API and dispatchers use; None when it is `admin_url`'s own.
    Safe to run at any time, from several places at once. Raises StoreUnavailable.
    """
    if _missing(applied_revisions(admin_url), phase):
        _upgrade(admin_url, phase)
    with psycopg.connect(admin_url) as admin:
        if settings is not None:
            _write_settings(admin, settings)
        register_handlers(admin)
        if service_role is not None:
            _grant_roles(admin, service_role)


def _upgrade(admin_url: str, phase: Phase) -> None:
    import sqlalchemy
    from alembic import command
    from sqlalchemy.pool import NullPool

    engine = sqlalchemy.create_engine(_sqlalchemy_url(admin_url), poolclass=NullPool)
    try:
        with engine.begin() as connection:
            config = _alembic_config()
            config.attributes["connection"] = connection
            for branch in ("pre", "post") if phase == "all" else (phase,):
                command.upgrade(config, f"{branch}@head")
    except sqlalchemy.exc.OperationalError as error:
        raise StoreUnavailable(f"cannot migrate: {error.orig}") from error
    finally:
        engine.dispose()


def migration_sql() -> str:
    """Return the SQL that would build today's schema from nothing, for a DBA to read and run."""
    from alembic import command

    output = io.StringIO()
    config = _alembic_config(output)
    command.upgrade(config, "heads", sql=True)
    return output.getvalue()


def missing_revisions(url: str, phase: Phase = "all") -> list[str]:
    """Return the revisions that the database lacks; [] when it is up to date, or newer.

    `phase="pre"` asks for what this version needs: a `post` part may come later.
    Raises StoreUnavailable when it cannot be asked.
    """
    return _missing(applied_revisions(url), phase)


def objection(url: str) -> str | None:
    """Return why processes of this version cannot start on the database; None if they can."""
    applied = applied_revisions(url)
    if missing := _missing(applied, "pre"):
        return (
            f"The database is not migrated for this version ({', '.join(missing)} missing): run "
            "`outbox migrate`."
        )
    return too_new(_reached(applied, "post"))


def applied_revisions(url: str) -> set[str]:
    """Return what was applied to the database; {} of a fresh one. Raises StoreUnavailable."""
    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            known = connection.execute("select to_regclass('outbox.alembic_version')").fetchone()
            if known is None or known[0] is None:
                return set()
            rows = connection.execute("select version_num from outbox.alembic_version")
            return {str(row[0]) for row in rows}
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"cannot reach Postgres: {error}") from error


def _reached(applied: set[str], branch: Branch) -> int:
    """Return the number of a branch's newest applied revision, of newer versions' too.

    A `post` that depends on a `pre` stands for it in Alembic's table.
    """
    wanted = ("_pre", "_post") if branch == "pre" else ("_post",)
    return max((int(name[:4]) for name in applied if name.endswith(wanted)), default=0)


def _missing(applied: set[str], phase: Phase) -> list[str]:
    branches: tuple[Branch, ...] = ("pre", "post") if phase == "all" else (phase,)
    return [
        name
        for branch in branches
        for name in revisions_of(branch)
        if int(name[:4]) > _reached(applied, branch)
    ]


def register_handlers(connection: psycopg.Connection[tuple[object, ...]]) -> None:
    """Tell the store which channels and queues have a handler installed here."""
    for kind, group in (("channel", "outbox.channels"), ("queue", "outbox.queues")):
        for name in sorted({point.name for point in entry_points(group=group)}):
            connection.execute(
                "insert into outbox.handler (kind, name) values (%s, %s)"
                " on conflict (kind, name) do update set seen_at = excluded.seen_at",
                (kind, name),
            )


def _alembic_config(output: io.StringIO | None = None) -> AlembicConfig:
    from alembic.config import Config as AlembicConfig

    config = AlembicConfig() if output is None else AlembicConfig(output_buffer=output)
    config.set_main_option("script_location", "outbox_sql:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _sqlalchemy_url(url: str) -> sqlalchemy.URL:
    import sqlalchemy

    parsed = sqlalchemy.make_url(url)
    if parsed.drivername in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def _write_settings(
    connection: psycopg.Connection[tuple[object, ...]], settings: DatabaseSettings
) -> None:
    connection.execute(
        "update outbox.setting set job_bytes_max = %s, batch_jobs_max = %s, retention_s = %s,"
        " dead_letter_retention_s = %s, timeout_s_max = %s, template_check = %s,"
        " default_locale = %s, ordering_on_failure = %s",
        (
            settings.job_bytes_max,
            settings.batch_jobs_max,
            settings.retention_s,
            settings.dead_letter_retention_s,
            settings.timeout_s_max,
            settings.template_check,
            settings.default_locale,
            settings.ordering_on_failure,
        ),
    )


def _grant_roles(connection: psycopg.Connection[tuple[object, ...]], service_role: str) -> None:
    connection.execute(
        sql.SQL("grant {} to {}").format(
            sql.SQL(", ").join(map(sql.Identifier, SERVICE_ROLES)), sql.Identifier(service_role)
        )
    )

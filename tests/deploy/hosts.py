"""Network namespaces as hosts on one switch, and a Postgres on one of them. Needs root."""

from __future__ import annotations

import contextlib
import itertools
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from outbox.embedded_cluster import find_binaries

AS_NOBODY = ("unshare", "--user", "--map-user=65534", "--map-group=65534", "--")
START_S_MAX = 20.0


@dataclass(frozen=True)
class Host:
    """One namespace: its address, and the words that run a command there."""

    name: str
    address: str

    def words(self, *command: str) -> list[str]:
        """Return the command line that runs `command` on this host."""
        return ["ip", "netns", "exec", self.name, *command]


class Network:
    """A bridge in a namespace of its own, and the hosts at it."""

    def __init__(self) -> None:
        self._number = os.getpid() % 250
        self._switch = f"ob{os.getpid()}-sw"
        self._hosts: list[Host] = []
        self._next = itertools.count(2)
        _ip("netns", "add", self._switch)
        self._in_switch("link", "add", "br0", "type", "bridge")
        self._in_switch("link", "set", "br0", "up")

    @property
    def cidr(self) -> str:
        """All of its addresses."""
        return f"10.199.{self._number}.0/24"

    def host(self, name: str) -> Host:
        """Add a host."""
        number = next(self._next)
        host = Host(f"ob{os.getpid()}-{name}", f"10.199.{self._number}.{number}")
        _ip("netns", "add", host.name)
        self._hosts.append(host)
        port = f"p{number}"
        self._in_switch("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns",
                        host.name)  # fmt: skip
        self._in_switch("link", "set", port, "master", "br0", "up")
        for words in (("link", "set", "lo", "up"), ("link", "set", "eth0", "up"),
                      ("addr", "add", f"{host.address}/24", "dev", "eth0")):  # fmt: skip
            _ip("-n", host.name, *words)
        return host

    def close(self) -> None:
        """Remove all."""
        for name in (*(host.name for host in self._hosts), self._switch):
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def _in_switch(self, *words: str) -> None:
        _ip("-n", self._switch, *words)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """Yield a switch without hosts; remove it and them afterwards."""
    made = Network()
    try:
        yield made
    finally:
        made.close()


class Postgres:
    """A server on a host. Whoever is on the switch may log in as `postgres` without a password."""

    def __init__(self, host: Host, folder: Path) -> None:
        self.host = host
        self.data = folder / host.name
        self._log = folder / f"{host.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def url(self, user: str = "postgres", database: str = "outbox") -> str:
        """Return the URL for a login."""
        return f"postgresql://{user}@{self.host.address}:5432/{database}"

    def make(self) -> None:
        """Make a cluster with the settings of production."""
        self._do("initdb", "--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8",
                 "--locale=C", str(self.data))  # fmt: skip
        with (self.data / "pg_hba.conf").open("a") as hba:
            hba.write("host all all samenet trust\nhost replication all samenet trust\n")

    def start(self, **settings: str) -> None:
        """Start it, and wait until it answers."""
        given = [f"--{name}={value}" for name, value in settings.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self.host.words(*unprivileged(), str(find_binaries() / "postgres"), "-D",
                                str(self.data), "--listen_addresses=*",
                                "--unix_socket_directories=", *given),
                stdout=log, stderr=log,
            )  # fmt: skip
        deadline = time.monotonic() + START_S_MAX
        while self.run("select 1", check=False).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"Postgres does not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def run(
        self, statement: str, database: str = "postgres", *, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run a statement on the host itself; its answer is in `stdout`."""
        return subprocess.run(
            self.host.words(str(find_binaries() / "psql"), "-XAtq", "-v", "ON_ERROR_STOP=1", "-c",
                            statement, self.url(database=database)),
            check=check, capture_output=True, text=True,
        )  # fmt: skip

    def stop(self) -> None:
        """Stop it at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def kill(self) -> None:
        """Have it gone, as by a power cut."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _do(self, program: str, *words: str) -> None:
        command: Sequence[str] = (*unprivileged(), str(find_binaries() / program), *words)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def unprivileged() -> Sequence[str]:
    """Return the words before a command that refuses to run as root."""
    return AS_NOBODY if os.geteuid() == 0 else ()

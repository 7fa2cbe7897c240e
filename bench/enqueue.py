"""How fast jobs are taken in through the Python door: by batch, and one by one.

    python bench/enqueue.py [--seconds 5] [--rounds 3] [--batch 500,1000] [--connections 1,2]
                            [--singles 8] [--url SUPERUSER_URL | --binaries DIR] [--json]

Batches: `outbox.enqueue_many` of fresh jobs like those of the contract, and a commit each;
validation and idempotency included. Singles: `outbox.enqueue` and a commit, beside a bare
transaction that inserts three comparable rows (a key, a job, a place in line) and checks nothing.
The two take turns, and the ratio is the median of the rounds'.

Each connection is a thread in one of two processes, so that the client does not wait for itself.
Jobs are made before the clock starts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import secrets
import statistics
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import psycopg
from psycopg import sql

import outbox
from outbox.embedded import EmbeddedServer
from outbox.migrate import migrate

Job = dict[str, object]
Turn = Callable[[psycopg.Connection[tuple[object, ...]], list[Job]], None]

PROCESSES = 2
SINGLES_MADE = 4_000
BATCHES_MADE = 16

BARE = """
create schema bare;
create table bare.job_key (like outbox.job_key including all);
create table bare.job (like outbox.job including all);
create table bare.entry (like outbox.entry including all);
create sequence bare.id_seq cache 32;
"""


@dataclass(frozen=True)
class Load:
    """What one process does: `connections` threads, each handing in `batch` jobs a turn."""

    url: str
    kind: str
    batch: int
    connections: int
    seconds: float


def make_job() -> Job:
    """Return a fresh job like the contract's first example: some 500 bytes."""
    return {
        "job_id": str(outbox.uuid7()),
        "user_id": str(outbox.uuid7()),
        "channel": "email",
        "template_code": "welcome_email",
        "locale": "ru",
        "data": {"first_name": "Нуржан", "login_url": "https://cinema.kz/login"},
        "meta": {
            "event_type": "user_registered",
            "event_id": str(outbox.uuid7()),
            "campaign_id": None,
            "priority": "normal",
        },
        "created_at": datetime.now(UTC).isoformat(),
        "send_after": None,
        "expires_at": None,
    }


def take_batch(connection: psycopg.Connection[tuple[object, ...]], jobs: list[Job]) -> None:
    outbox.enqueue_many(connection, jobs)
    connection.commit()


def take_one(connection: psycopg.Connection[tuple[object, ...]], jobs: list[Job]) -> None:
    outbox.enqueue(connection, jobs[0])
    connection.commit()


def insert_bare(connection: psycopg.Connection[tuple[object, ...]], jobs: list[Job]) -> None:
    """Insert the three rows of a job by three plain statements in one transaction."""
    job = jobs[0]
    meta = job["meta"]
    assert isinstance(meta, dict)
    number = secrets.randbits(62)
    connection.execute(
        "insert into bare.job_key (tenant_id, job_id, id, content_sha256)"
        " values ('default', %s, %s, %s)",
        (UUID(str(job["job_id"])), number, b"\0" * 32),
    )
    connection.execute(
        "insert into bare.job (id, job_id, created_at, lane_id, priority, tenant_id, queue,"
        " channel, template_code, locale, user_id, event_id, job)"
        " values (%s, %s, %s, 1, 1, 'default', 'email', 'email', %s, %s, %s, %s, %s)",
        (
            number,
            UUID(str(job["job_id"])),
            job["created_at"],
            job["template_code"],
            job["locale"],
            job["user_id"],
            meta["event_id"],
            json.dumps(job, ensure_ascii=False),
        ),
    )
    connection.execute(
        "insert into bare.entry (id, available_at, lane_id, priority)"
        " values (%s, clock_timestamp(), 1, 1)",
        (number,),
    )
    connection.commit()


TURNS: dict[str, Turn] = {"batch": take_batch, "single": take_one, "bare": insert_bare}


def run_process(load: Load) -> tuple[int, float]:
    """Hand jobs in for so long; return how many, and the seconds it took."""
    made = BATCHES_MADE if load.batch > 1 else SINGLES_MADE
    counts = [0] * load.connections
    started = [0.0] * load.connections
    ended = [0.0] * load.connections
    gate = threading.Barrier(load.connections)

    def work(index: int) -> None:
        turn = TURNS[load.kind]
        stock = [[make_job() for _ in range(load.batch)] for _ in range(made)]
        with psycopg.connect(load.url) as connection:
            turn(connection, [make_job() for _ in range(load.batch)])  # plans, caches
            gate.wait()
            started[index] = monotonic()
            while monotonic() - started[index] < load.seconds:
                if not stock:
                    break
                turn(connection, stock.pop())
                counts[index] += load.batch
            ended[index] = monotonic()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(load.connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts), max(ended) - min(started)


def measure(url: str, kind: str, batch: int, connections: int, seconds: float) -> float:
    """Return jobs per second over all connections."""
    shares = [connections // PROCESSES + (n < connections % PROCESSES) for n in range(PROCESSES)]
    loads = [Load(url, kind, batch, share, seconds) for share in shares if share]
    with ProcessPoolExecutor(
        len(loads), mp_context=multiprocessing.get_context("spawn")
    ) as processes:
        ran = list(processes.map(run_process, loads))
    return sum(count / took for count, took in ran)


@contextlib.contextmanager
def database(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield a superuser's URL of a fresh, migrated database, on a server of our own or a given."""
    with contextlib.ExitStack() as stack:
        if arguments.url is None:
            # Not /tmp, which is often memory, where a commit costs nothing.
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))
            binaries = None if arguments.binaries is None else Path(arguments.binaries)
            server = EmbeddedServer.acquire(Path(folder), binaries=binaries)
            stack.enter_context(server)
            admin_url = server.admin_url
        else:
            admin_url = arguments.url
        name = f"outbox_bench_{secrets.token_hex(4)}"
        with psycopg.connect(admin_url, autocommit=True) as admin:
            admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        url = urlunsplit(urlsplit(admin_url)._replace(path=f"/{name}"))
        try:
            migrate(url)
            with psycopg.connect(url) as admin:
                admin.execute(BARE)
                admin.execute(
                    "insert into outbox.template"
                    " (tenant_id, code, channel, locale, version, body_text)"
                    " values ('default', 'welcome_email', 'email', 'ru', 1, 'text')"
                )
            yield url
        finally:
            with psycopg.connect(admin_url, autocommit=True) as admin:
                admin.execute(
                    sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
                )


def figures(url: str, arguments: argparse.Namespace) -> dict[str, object]:
    found: dict[str, object] = {}
    with psycopg.connect(url) as connection:
        found["postgres"] = connection.info.parameter_status("server_version")
    rate = partial(measure, url, seconds=arguments.seconds)
    for connections in arguments.connections:
        for batch in arguments.batch:
            rates = [
                rate("batch", batch=batch, connections=connections)
                for _ in range(arguments.rounds)
            ]
            found[f"batch_{batch}_on_{connections}_jobs_per_s"] = round(statistics.median(rates))
    singles, bares = [], []
    for _ in range(arguments.rounds):
        bares.append(rate("bare", batch=1, connections=arguments.singles))
        singles.append(rate("single", batch=1, connections=arguments.singles))
    found[f"singles_on_{arguments.singles}_per_s"] = round(statistics.median(singles))
    found[f"bare_three_rows_on_{arguments.singles}_per_s"] = round(statistics.median(bares))
    ratios = [single / bare for single, bare in zip(singles, bares, strict=True)]
    found["singles_to_bare"] = round(statistics.median(ratios), 2)
    return found


def main() -> None:
    def several(text: str) -> list[int]:
        return [int(part) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=several, default=[500, 1000])
    parser.add_argument("--connections", type=several, default=[1, 2])
    parser.add_argument("--singles", type=int, default=8, help="connections")
    parser.add_argument("--url", help="a superuser's, of a server of your own")
    parser.add_argument("--binaries", help="the bin directory of another Postgres")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with database(arguments) as url:
        found = figures(url, arguments)
    if arguments.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:>40}  {value}")


if __name__ == "__main__":
    main()

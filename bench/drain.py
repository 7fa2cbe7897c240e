"""Drain a backlog of no-op jobs: one and two dispatcher processes, beside a plain-SQL floor.

    .venv/bin/python bench/drain.py [--jobs 100000] [--processes 1,2] [--url URL] [--json]

The floor is a script that claims and records batches by SQL and does nothing else: same tables,
same batch, no leases, no history columns beyond the bare row, no liveness.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import psycopg
import uvloop
from noop import Noop

from outbox.embedded import EmbeddedServer
from outbox.migrate import migrate
from outbox_dispatcher.service import Dispatcher
from outbox_dispatcher.settings import DispatcherSettings

FLOOR_CLAIM = """
with picked as materialized (
    select id from outbox.entry
    where lane_id = %(lane)s and priority = 1 and claimed_by is null
      and (available_at, id) > (%(at)s, %(id)s) and available_at <= statement_timestamp()
    order by available_at, id limit 500 for update skip locked)
update outbox.entry as e set claimed_by = 1, lease_no = e.lease_no + 1, attempt = e.attempt + 1
where e.id = any(array(select id from picked)) returning e.id, e.available_at"""
FLOOR_RECORD = """
with gone as (delete from outbox.entry where id = any(%(ids)s) and claimed_by = 1 returning id, lease_no)
insert into outbox.delivery (id, finished_at, lease_no, series, attempt, terminal, status, tenant_id)
select id, clock_timestamp(), lease_no, 1, 1, true, 'SENT', 'default' from gone"""
FILL = """
select count(*) from (select outbox.enqueue_many_v1(array(
    select jsonb_build_object('queue', 'noop', 'payload', jsonb_build_object('n', n, 'text', repeat('x', 400)))
    from generate_series(1, %s) as n))) as x"""


@contextlib.contextmanager
def server(url: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        with EmbeddedServer.acquire(Path(folder) / "pg") as embedded:
            migrate(embedded.admin_url, service_role="outbox")
            yield embedded.admin_url


def fill(url: str, jobs: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "insert into outbox.handler (kind, name) values ('queue', 'noop') on conflict do nothing"
        )
        for start in range(0, jobs, 5000):
            connection.execute(FILL, (min(5000, jobs - start),))
        connection.execute("vacuum analyze outbox.entry")
        connection.execute("checkpoint")


def drain_process(url: str, gate: object) -> None:
    async def main() -> None:
        settings = DispatcherSettings(database_url=url, queues=frozenset({"noop"}))
        dispatcher = Dispatcher(settings, channels={}, queues={"noop": Noop()})
        await dispatcher.run(drain=True)

    gate.wait()  # type: ignore[attr-defined]
    uvloop.run(main())


def floor_process(url: str, gate: object) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("select lane_id from outbox.lane where queue = 'noop'").fetchone()
        assert row is not None
        at, last = "-infinity", 0
        gate.wait()  # type: ignore[attr-defined]
        while True:
            rows = connection.execute(
                FLOOR_CLAIM, {"lane": row[0], "at": at, "id": last}, prepare=True
            ).fetchall()
            if not rows:
                return
            at, last = max((r[1], r[0]) for r in rows)
            connection.execute(FLOOR_RECORD, {"ids": [r[0] for r in rows]}, prepare=True)


def run(url: str, jobs: int, processes: int, target: object) -> dict[str, float]:
    fill(url, jobs)
    context = multiprocessing.get_context("spawn")
    gate = context.Barrier(processes + 1)
    workers = [context.Process(target=target, args=(url, gate)) for _ in range(processes)]
    for worker in workers:
        worker.start()
    with psycopg.connect(url, autocommit=True) as connection:
        before = connection.execute("select wal_bytes, wal_fpi from pg_stat_wal").fetchone()
        gate.wait()
        began = monotonic()
        while connection.execute("select exists (select from outbox.entry)").fetchone() == (True,):
            connection.execute("select pg_sleep(0.02)")
        took_s = monotonic() - began
        for worker in workers:
            worker.join()
        after = connection.execute("select wal_bytes, wal_fpi from pg_stat_wal").fetchone()
    assert before is not None
    assert after is not None
    return {
        "jobs_per_s": round(jobs / took_s),
        "wal_bytes_per_job": round((float(after[0]) - float(before[0])) / jobs),
        "full_page_images": int(after[1]) - int(before[1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--url")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    results: dict[str, object] = {}
    with server(arguments.url) as url:
        for processes in map(int, arguments.processes.split(",")):
            floor = run(url, arguments.jobs, processes, floor_process)
            ours = run(url, arguments.jobs, processes, drain_process)
            results[f"processes_{processes}"] = ours | {
                "floor_jobs_per_s": floor["jobs_per_s"],
                "floor_wal_bytes_per_job": floor["wal_bytes_per_job"],
                "ratio_to_floor": round(ours["jobs_per_s"] / floor["jobs_per_s"], 2),
            }
            if not arguments.json:
                print(processes, results[f"processes_{processes}"], flush=True)
    if arguments.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()

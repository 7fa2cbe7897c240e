"""How soon an idle fleet starts a job, and what it costs the database while nothing happens.

One job at a time, at irregular intervals, with two dispatcher processes asleep. The clock is this
machine's, read by the producer right before it commits (or posts) and by the handler right when
it is called, so every figure has the whole way in it:

    http       POST sent → started: one commit, the bell, a claim
    notify     SQL `enqueue(…, notify => true)`: from before its commit → started
    scheduled  `send_after` → started
    poll       SQL without a bell: nobody is told, the dispatchers look by themselves

The `due_` figures count from when the store says that the job became due.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from uuid import UUID

import psycopg

from outbox.message import uuid7
from outbox_bench.arena import Connection, Place, arena, counting_statements
from outbox_bench.children import Child, first_told
from outbox_bench.figures import Figures, Said, machine, quantile, tidy
from outbox_bench.http import ADMIN_KEY, free_port
from outbox_bench.noop import QUEUE
from outbox_bench.orders import DispatchNoop, Ready, Serve, Stamp
from outbox_bench.store import handle, settle

STARTED_S_MAX = 15.0
PAUSE_S = (0.03, 0.3)
WARM = 3
"""The first few meet cold connections and plans."""
SCHEDULED_AHEAD_S = (0.3, 1.5)
STATEMENTS_SHOWN = 8
Submit = Callable[[UUID], float]
"""Hands a job in; returns when it was due, in seconds of this machine's clock."""
AbstractSubmit = contextlib.AbstractContextManager[Submit]


@dataclass(frozen=True, kw_only=True)
class Options:
    """`samples` by HTTP and notify; of the slower ways a fifth. `idle_s`: how long to count.

    `poll_pause_s`: between two jobs that nobody rings for; polls get rarer for some 2 s.
    """

    samples: int = 150
    idle_s: float = 20.0
    poll_pause_s: tuple[float, float] = (2.0, 4.0)
    processes: int = 2
    url: str | None = None


def measure(options: Options, said: Said) -> Figures:
    """Return the figures."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(arena(options.url, settings=counting_statements()))
        place = stack.enter_context(server.fresh(_fill))
        fleet = [
            stack.enter_context(Child(DispatchNoop(url=place.url, stamps=True)))
            for _ in range(options.processes)
        ]
        for dispatcher in fleet:
            dispatcher.ready(Ready)
        idle = _idle(place, options.idle_s)
        said(f"idle: {idle}")
        found: Figures = {}
        few = max(1, options.samples // 5)
        ways: dict[str, tuple[int, tuple[float, float], Callable[[], AbstractSubmit]]] = {
            "http": (options.samples, PAUSE_S, partial(_over_http, place)),
            "notify": (options.samples, PAUSE_S, partial(_over_sql, place, notify=True)),
            "scheduled": (few, PAUSE_S, partial(_scheduled, place)),
            "poll": (few, options.poll_pause_s, partial(_over_sql, place, notify=False)),
        }
        for name, (samples, pause_s, opened) in ways.items():
            with opened() as submit:
                measured = _sample(place, fleet, submit, samples, pause_s)
            said(f"{name}: {measured}")
            found |= {f"{name}_{key}": value for key, value in measured.items()}
        return {
            "benchmark": "latency",
            **found,
            **idle,
            "samples": options.samples,
            "processes": options.processes,
            **machine(server.version()),
        }


def _sample(
    place: Place, fleet: list[Child], submit: Submit, samples: int, pause_s: tuple[float, float]
) -> dict[str, float]:
    """Hand in one job after another, each when the last has started and a while has passed."""
    started_s: dict[UUID, float] = {}
    handed_in_s: dict[UUID, float] = {}
    for _ in range(samples + WARM):
        time.sleep(random.uniform(*pause_s))
        job_id = uuid7()
        handed_in_s[job_id] = submit(job_id)
        stamp = first_told(fleet, Stamp, within_s=STARTED_S_MAX)
        if UUID(stamp.job_id) != job_id:
            raise RuntimeError("another job was started than the one that was handed in")
        started_s[job_id] = stamp.at_ns / 1e9
    counted = list(started_s)[WARM:]
    due_s = _due_s(place)
    figures: dict[str, float] = {}
    for name, since_s in (("", handed_in_s), ("due_", due_s)):
        waits_ms = [(started_s[job_id] - since_s[job_id]) * 1000 for job_id in counted]
        figures[f"{name}p50_ms"] = tidy(quantile(waits_ms, 0.5))
        figures[f"{name}p99_ms"] = tidy(quantile(waits_ms, 0.99))
    return figures


def _due_s(place: Place) -> dict[UUID, float]:
    """Return when each job was due by the store: accepted (in whole ms), or `send_after`."""
    with place.connect() as connection:
        rows = connection.execute(
            "select job_id, extract(epoch from greatest(send_after, outbox.id_time(id)))::float8"
            " from outbox.job"
        ).fetchall()
    return {UUID(str(row[0])): float(str(row[1])) for row in rows}


def _fill(place: Place) -> None:
    with place.connect() as connection:
        handle(connection, QUEUE)
        settle(connection)


@contextlib.contextmanager
def _over_http(place: Place) -> Iterator[Submit]:
    port = free_port()
    with Child(Serve(url=place.url, port=port, admin_key=ADMIN_KEY)) as api:
        api.ready(Ready)
        client = http.client.HTTPConnection("127.0.0.1", port)
        headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/json"}

        def submit(job_id: UUID) -> float:
            body = json.dumps({"job_id": str(job_id), "queue": QUEUE, "payload": {}})
            began_s = time.time()
            client.request("POST", "/api/v1/jobs", body, headers)
            answer = client.getresponse()
            told = answer.read()
            if answer.status != 202:
                raise RuntimeError(f"{answer.status}: {told[:500]!r}")
            return began_s

        yield submit
        client.close()


@contextlib.contextmanager
def _over_sql(place: Place, *, notify: bool) -> Iterator[Submit]:
    with place.connect() as connection:

        def submit(job_id: UUID) -> float:
            with connection.transaction():
                _enqueue(connection, job_id, {}, notify=notify)
                began_s = time.time()
            return began_s

        yield submit


@contextlib.contextmanager
def _scheduled(place: Place) -> Iterator[Submit]:
    with place.connect() as connection:

        def submit(job_id: UUID) -> float:
            due = datetime.now(UTC) + timedelta(seconds=random.uniform(*SCHEDULED_AHEAD_S))
            _enqueue(connection, job_id, {"send_after": due.isoformat()}, notify=True)
            return due.timestamp()

        yield submit


def _enqueue(
    connection: Connection, job_id: UUID, fields: dict[str, object], *, notify: bool
) -> None:
    job = {"job_id": str(job_id), "queue": QUEUE, "payload": {}, **fields}
    connection.execute(
        "select from outbox.enqueue(%s::jsonb, notify => %s)", (json.dumps(job), notify)
    )


def _idle(place: Place, idle_s: float) -> Figures:
    """Return how many statements a second the fleet sends while nothing happens, and which."""
    with place.connect() as connection:
        time.sleep(min(idle_s, 2.0))  # what comes once, at the start, is over
        try:
            connection.execute("create extension if not exists pg_stat_statements")
            connection.execute("select pg_stat_statements_reset()")
        except psycopg.Error:
            return {"idle_statements_per_s": None}
        time.sleep(idle_s)
        rows = connection.execute(
            "select s.query, s.calls from pg_stat_statements as s"
            " join pg_database as d on d.oid = s.dbid"
            " where d.datname = current_database() and s.query !~ 'pg_stat_statements'"
            " order by s.calls desc"
        ).fetchall()
    calls = [(_start_of(str(row[0])), int(str(row[1]))) for row in rows]
    return {
        "idle_statements_per_s": tidy(sum(count for _, count in calls) / idle_s),
        "idle_by_statement": {
            text: tidy(count / idle_s) for text, count in calls[:STATEMENTS_SHOWN]
        },
    }


def _start_of(query: str) -> str:
    """Return the first words of a statement, past the comments at its head."""
    lines = [line for line in query.splitlines() if not line.startswith("--")]
    return " ".join(" ".join(lines).split())[:60]

"""Whether a job costs the same whatever lies beside it (invariant 12).

    backlog   10 thousand, a million, … due jobs: the first of them drained
    ahead     as many due jobs, with millions scheduled far ahead
    pinned    a whole backlog drained while somebody holds a snapshot open, so that nothing that
              is claimed or deleted can be vacuumed: the last tenth beside the first
    one_time  the same where all jobs are due at one and the same time (a campaign)

One dispatcher process, no-op jobs. CPU per job is what Postgres spent on it: unlike a rate, it
hardly depends on what else the machine does.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psycopg

from outbox_bench.arena import Arena, Connection, Place, arena
from outbox_bench.children import Child
from outbox_bench.figures import Figures, machine, ratio, tidy
from outbox_bench.noop import QUEUE
from outbox_bench.orders import DispatchNoop, Ready
from outbox_bench.store import DRAIN_S_MAX, handle, pause, resume, settle
from outbox_bench.usage import cpu_s, us_per

SAMPLE_S = 0.25
CHUNK_JOBS = 250_000

# As the doors would have stored them, but for the keys, which draining never looks at.
FILL = """
with made as materialized (
    select outbox.id_floor(clock_timestamp() - interval '1 minute') + n as id, n
    from generate_series(%(from)s::bigint, %(to)s::bigint) as n
), jobs as (
    insert into outbox.job (id, job_id, created_at, lane_id, priority, tenant_id, queue, job)
    select m.id, gen_random_uuid(), clock_timestamp(), %(lane)s, 1, 'default', %(queue)s,
           jsonb_build_object('queue', %(queue)s::text, 'payload', jsonb_build_object('n', m.n))
    from made as m)
insert into outbox.entry (id, available_at, lane_id, priority)
select m.id, clock_timestamp() + %(due_in)s::interval + m.n * %(apart)s::interval, %(lane)s, 1
from made as m
"""
DONE = "select coalesce(sum(sent), 0)::bigint from outbox.stat_second"


@dataclass(frozen=True, kw_only=True)
class Options:
    """`sample` jobs are drained of each backlog; `pinned` ones, all of them, under a snapshot."""

    backlogs: tuple[int, ...] = (10_000, 1_000_000)
    ahead: int = 5_000_000
    pinned: int = 2_000_000
    sample: int = 50_000
    url: str | None = None


@dataclass(frozen=True)
class Seen:
    """A look at a drain: how many were done, seconds since its start, CPU seconds of Postgres."""

    done: int
    at_s: float
    cpu_s: float | None


def measure(options: Options, said: Callable[[str], None]) -> Figures:
    """Return the figures. `series` holds the points of each plot."""
    with arena(options.url) as server:
        found: dict[str, Figures] = {}
        series: dict[str, list[list[float]]] = {}
        for backlog in options.backlogs:
            name = f"backlog_{backlog}"
            seen = _drain(server, due=backlog, until=min(backlog, options.sample))
            found[name] = _cost(seen)
            said(f"{name}: {found[name]}")
        if options.ahead:
            seen = _drain(server, due=options.sample, ahead=options.ahead, until=options.sample)
            found["ahead"] = _cost(seen) | {"scheduled_ahead": options.ahead}
            said(f"ahead: {found['ahead']}")
        for name, one_time in (("pinned", False), ("one_time", True)):
            if options.pinned:
                seen = _drain(
                    server,
                    due=options.pinned,
                    until=options.pinned,
                    pinned=True,
                    one_time=one_time,
                )
                found[name] = _cost(seen) | _tenths(seen, options.pinned)
                series[name] = [[s.done, s.at_s] for s in seen]
                said(f"{name}: {found[name]}")
        return {
            "benchmark": "flat",
            **found,
            "series": series,
            "sample": options.sample,
            **machine(server.version()),
        }


def _drain(
    server: Arena,
    *,
    due: int,
    until: int,
    ahead: int = 0,
    pinned: bool = False,
    one_time: bool = False,
) -> list[Seen]:
    with server.fresh() as place, place.connect() as connection:
        handle(connection, QUEUE)
        pause(connection, QUEUE)
        apart = "0" if one_time else "1 microsecond"
        _fill(connection, range(due), due_in="-1 hour", apart=apart)
        _fill(connection, range(due, due + ahead), due_in="30 days", apart="1 second")
        settle(connection)
        with _snapshot(place) if pinned else contextlib.nullcontext():
            with Child(DispatchNoop(url=place.url)) as dispatcher:
                dispatcher.ready(Ready)
                began = resume(connection, QUEUE)
                return _watch(connection, server.server_pid, began, until)


def _fill(connection: Connection, numbers: range, *, due_in: str, apart: str) -> None:
    (lane,) = connection.execute(
        "select lane_id from outbox.lane where queue = %s and scope = ''", (QUEUE,)
    ).fetchall()
    now = connection.execute("select clock_timestamp()").fetchone()
    assert now is not None
    for start in range(numbers.start, numbers.stop, CHUNK_JOBS):
        connection.execute(
            FILL.replace("clock_timestamp()", "%(now)s::timestamptz"),
            {
                "now": now[0],
                "from": start,
                "to": min(start + CHUNK_JOBS, numbers.stop) - 1,
                "lane": lane[0],
                "queue": QUEUE,
                "due_in": due_in,
                "apart": apart,
            },
        )


@contextlib.contextmanager
def _snapshot(place: Place) -> Iterator[None]:
    """Hold a snapshot open, as a forgotten session or a long report does."""
    with psycopg.connect(place.admin_url) as holder:
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holder.execute("select from outbox.entry limit 1")
        yield


def _watch(connection: Connection, server_pid: int | None, began: float, until: int) -> list[Seen]:
    seen = [Seen(0, 0.0, cpu_s(server_pid))]
    deadline = began + DRAIN_S_MAX
    while seen[-1].done < until:
        if time.monotonic() > deadline:
            raise TimeoutError("the backlog was not drained in time")
        time.sleep(SAMPLE_S)
        row = connection.execute(DONE).fetchone()
        assert row is not None
        seen.append(Seen(int(str(row[0])), time.monotonic() - began, cpu_s(server_pid)))
    return seen


def _cost(seen: list[Seen]) -> Figures:
    last = seen[-1]
    spent = None
    if last.cpu_s is not None and seen[0].cpu_s is not None:
        spent = last.cpu_s - seen[0].cpu_s
    return {
        "jobs_per_s": tidy(last.done / last.at_s),
        "postgres_cpu_us_per_job": us_per(spent, last.done),
    }


def _tenths(seen: list[Seen], jobs: int) -> Figures:
    first, first_cpu_us = _between(seen, 0, jobs // 10)
    last, last_cpu_us = _between(seen, jobs - jobs // 10, jobs)
    return {
        "first_tenth_per_s": tidy(first),
        "last_tenth_per_s": tidy(last),
        "last_to_first": ratio(last, first),
        "first_tenth_postgres_cpu_us": first_cpu_us,
        "last_tenth_postgres_cpu_us": last_cpu_us,
        "jobs": jobs,
    }


def _between(seen: list[Seen], low: int, high: int) -> tuple[float, float | None]:
    """Return jobs a second and Postgres' CPU a job, between the looks nearest to these counts."""
    start = max((s for s in seen if s.done <= low), key=lambda s: s.done)
    end = min((s for s in seen if s.done >= high), key=lambda s: s.at_s)
    jobs = end.done - start.done
    spent_s = None if start.cpu_s is None or end.cpu_s is None else end.cpu_s - start.cpu_s
    return jobs / (end.at_s - start.at_s), us_per(spent_s, jobs)

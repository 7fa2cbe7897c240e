"""Whether a job costs the same whatever lies beside it (invariant 12).

    backlog   10 thousand, a million, … due jobs: the first of them drained
    ahead     as many due jobs, with millions scheduled far ahead
    pinned    a whole backlog drained while somebody holds a snapshot open, so that nothing that
              is claimed or deleted can be vacuumed: the last tenth beside the first
    one_time  the same where all jobs are due at one and the same time (a campaign)

One dispatcher process (pinned drains: `processes`), no-op jobs. Clocks tell what the machine did
meanwhile, counters what a job costs: pages that claims looked at, entries that they read in the
index (dead ones, too), pages of whatever dispatchers asked (polls and upkeep may walk over what is
dead as well), and the CPU that Postgres spent. `bench/plots` draws them.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import psycopg

from outbox_bench.arena import Arena, Connection, Place, arena, counting_statements
from outbox_bench.children import Child
from outbox_bench.figures import Figures, Said, machine, ratio, tidy
from outbox_bench.noop import QUEUE
from outbox_bench.orders import DispatchNoop, Ready
from outbox_bench.store import DRAIN_S_MAX, handle, pause, resume, settle
from outbox_bench.usage import cpu_s, us_per

SAMPLE_S = 0.25
CHUNK_JOBS = 250_000
POINTS_MAX = 60
DRAINED_PER_S_MIN = 1_000
"""Slower than that, and a measurement is given up."""

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
DONE = """
select coalesce(sum(s.sent), 0)::bigint,
       coalesce(sum(s.sent) filter (where s.at < over.at), 0)::bigint,
       over.at
from (select date_trunc('second', now() - interval '5 seconds') as at) as over
left join outbox.stat_second as s on s.at >= %(since)s
group by over.at
"""
PAGES = """
select coalesce(sum(s.shared_blks_hit + s.shared_blks_read), 0)::bigint
from pg_stat_statements as s
join pg_database as d on d.oid = s.dbid
join pg_roles as r on r.oid = s.userid
where d.datname = current_database() and s.toplevel and r.rolname = 'outbox_dispatcher'
"""
CLAIMS = """
select s.calls, s.rows, s.shared_blks_hit + s.shared_blks_read, s.total_exec_time,
       (select i.idx_tup_read from pg_stat_user_indexes as i
        where i.indexrelid = 'outbox.entry_claim'::regclass)
from pg_stat_statements as s
join pg_database as d on d.oid = s.dbid
where d.datname = current_database() and strpos(s.query, 'with ask as materialized') > 0
order by s.calls desc
limit 1
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """`sample` jobs are drained of each backlog; `pinned` ones, all of them, under a snapshot.

    `processes`: how many dispatchers drain the pinned ones.
    """

    backlogs: tuple[int, ...] = (10_000, 1_000_000)
    ahead: int = 5_000_000
    pinned: int = 2_000_000
    sample: int = 50_000
    processes: int = 1
    url: str | None = None


@dataclass(frozen=True)
class Claims:
    """What all claims have cost so far: pages, milliseconds, entries read in the index."""

    calls: int = 0
    rows: int = 0
    pages: int = 0
    took_ms: float = 0.0
    entries_read: int = 0


@dataclass(frozen=True)
class Seen:
    """A look at a drain: how many were done, seconds since its start, CPU seconds of Postgres."""

    done: int
    at_s: float
    cpu_s: float | None
    claims: Claims | None
    pages: int = 0


class Done:
    """Counts what was sent by what is new alone: all of it would be read over and over.

    After 20 minutes it is rolled up, besides.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._before = 0
        self._since: object = "-infinity"

    def count(self) -> int:
        """Return how many have been sent so far."""
        row = self._connection.execute(DONE, {"since": self._since}).fetchone()
        assert row is not None
        recent, over, self._since = int(str(row[0])), int(str(row[1])), row[2]
        done = self._before + recent
        self._before += over
        return done


def measure(options: Options, said: Said) -> Figures:
    """Return the figures. `series` holds the points of each plot."""
    with arena(options.url, settings=counting_statements()) as server:
        found: dict[str, Figures] = {}
        series: dict[str, list[list[float | None]]] = {}
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
                    processes=options.processes,
                )
                found[name] = _cost(seen) | _tenths(seen, options.pinned)
                series[name] = _series(seen)
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
    processes: int = 1,
) -> list[Seen]:
    with server.fresh() as place, place.connect() as connection:
        handle(connection, QUEUE)
        pause(connection, QUEUE)
        apart = "0" if one_time else "1 microsecond"
        _fill(connection, range(due), due_in="-1 hour", apart=apart)
        _fill(connection, range(due, due + ahead), due_in="30 days", apart="1 second")
        settle(connection)
        counts = _count_statements(connection)
        with _snapshot(place) if pinned else contextlib.nullcontext():
            with contextlib.ExitStack() as fleet:
                for _ in range(processes):
                    fleet.enter_context(Child(DispatchNoop(url=place.url))).ready(Ready)
                began = resume(connection, QUEUE)
                return _watch(connection, server.server_pid, began, until, counts=counts)


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


def _count_statements(connection: Connection) -> bool:
    """Have the server count from here on; return whether it can."""
    try:
        connection.execute("create extension if not exists pg_stat_statements")
        connection.execute("select pg_stat_statements_reset()")
    except psycopg.Error:
        return False
    return True


def _watch(
    connection: Connection, server_pid: int | None, began: float, until: int, *, counts: bool
) -> list[Seen]:
    counter = Done(connection)

    def look(done: int, at_s: float) -> Seen:
        claims = _claims(connection) if counts else None
        pages = _pages(connection) if counts else 0
        return Seen(done, at_s, cpu_s(server_pid), claims, pages)

    seen = [look(0, 0.0)]
    deadline = began + max(DRAIN_S_MAX, until / DRAINED_PER_S_MIN)
    while seen[-1].done < until:
        if time.monotonic() > deadline:
            raise TimeoutError("the backlog was not drained in time")
        time.sleep(SAMPLE_S)
        seen.append(look(counter.count(), time.monotonic() - began))
    return seen


def _claims(connection: Connection) -> Claims:
    row = connection.execute(CLAIMS).fetchone()
    if row is None:  # nothing was claimed yet
        return Claims()
    calls, rows, pages, took_ms, entries_read = (float(str(value)) for value in row)
    return Claims(int(calls), int(rows), int(pages), took_ms, int(entries_read))


def _pages(connection: Connection) -> int:
    row = connection.execute(PAGES).fetchone()
    assert row is not None
    return int(str(row[0]))


def _cost(seen: list[Seen]) -> Figures:
    first, last = seen[0], seen[-1]
    return {"jobs_per_s": tidy(last.done / last.at_s)} | _spent(first, last)


def _spent(start: Seen, end: Seen) -> Figures:
    """Return what a job cost between two looks."""
    jobs = end.done - start.done
    spent_s = None if start.cpu_s is None or end.cpu_s is None else end.cpu_s - start.cpu_s
    found: Figures = {"postgres_cpu_us_per_job": us_per(spent_s, jobs)}
    if start.claims is None or end.claims is None:
        return found
    claimed = max(1, end.claims.rows - start.claims.rows)
    return found | {
        "pages_per_job": tidy((end.pages - start.pages) / max(1, jobs)),
        "pages_per_claimed": tidy((end.claims.pages - start.claims.pages) / claimed),
        "entries_read_per_claimed": tidy(
            (end.claims.entries_read - start.claims.entries_read) / claimed
        ),
        "claim_us_per_claimed": tidy((end.claims.took_ms - start.claims.took_ms) * 1000 / claimed),
        "claimed_at_once": tidy(claimed / max(1, end.claims.calls - start.claims.calls)),
    }


def _tenths(seen: list[Seen], jobs: int) -> Figures:
    first, last = _between(seen, 0, jobs // 10), _between(seen, jobs - jobs // 10, jobs)
    rates = [(end.done - start.done) / (end.at_s - start.at_s) for start, end in (first, last)]
    return {
        "first_tenth_per_s": tidy(rates[0]),
        "last_tenth_per_s": tidy(rates[1]),
        "last_to_first": ratio(rates[1], rates[0]),
        "first_tenth": _spent(*first),
        "last_tenth": _spent(*last),
        "jobs": jobs,
    }


def _between(seen: list[Seen], low: int, high: int) -> tuple[Seen, Seen]:
    """Return the looks nearest to these counts, outside of them."""
    start = max((s for s in seen if s.done <= low), key=lambda s: s.done)
    end = min((s for s in seen if s.done >= high), key=lambda s: s.at_s)
    return start, end


def _series(seen: list[Seen]) -> list[list[float | None]]:
    """Return at most POINTS_MAX points: jobs done, jobs a second, pages and µs per claimed job."""
    step = max(1, len(seen) // POINTS_MAX)
    looks = [*seen[:-1:step], seen[-1]]
    points: list[list[float | None]] = []
    for start, end in pairwise(looks):
        if end.done == start.done:
            continue
        spent = _spent(start, end)
        rate = (end.done - start.done) / (end.at_s - start.at_s)
        names = ("pages_per_claimed", "claim_us_per_claimed")
        points.append([end.done, tidy(rate), *(_number(spent.get(name)) for name in names)])
    return points


def _number(value: object) -> float | None:
    return value if isinstance(value, int | float) else None

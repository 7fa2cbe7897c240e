"""Drain while upkeep retires days, beside draining while there is nothing to retire.

Three stores: a young one with few partitions, an old one with as many as its retention keeps, and
the same one with days over age, which the dispatcher's own upkeep retires meanwhile. A prober
enqueues and rolls back all the while: how long a producer has to wait at worst.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from outbox_bench.arena import Arena, Connection, Place, arena
from outbox_bench.children import Child
from outbox_bench.figures import Figures, Round, Said, interleaved, machine, quantile, ratio
from outbox_bench.noop import QUEUE
from outbox_bench.orders import DispatchNoop, Ready
from outbox_bench.store import fill_noop, resume, settle, until_empty, until_none

RETENTION_DAYS = 90
PROBE_PAUSE_S = 0.01

# `at`: a day gone by. Its jobs have ended.
PAST = """
with made as materialized (
    select outbox.id_floor(%(at)s::timestamptz) + n as id, gen_random_uuid() as job_id
    from generate_series(1, %(jobs)s) as n
), keys as (
    insert into outbox.job_key (tenant_id, job_id, id, content_sha256)
    select 'default', m.job_id, m.id, sha256('') from made as m
), history as (
    insert into outbox.delivery (id, started_at, finished_at, lease_no, series, attempt, terminal,
        status, tenant_id)
    select m.id, %(at)s, %(at)s, 1, 1, 1, true, 'SENT', 'default' from made as m
)
insert into outbox.job (id, job_id, created_at, lane_id, priority, tenant_id, queue, job)
select m.id, m.job_id, %(at)s, outbox.lane_of('default', %(queue)s), 1, 'default', %(queue)s,
       jsonb_build_object('queue', %(queue)s::text, 'payload', repeat('x', 400))
from made as m
"""

LEFT_TO_RETIRE = """
select d.day from outbox.days_of('outbox.job') as d
where d.day <= outbox.retention_day(clock_timestamp())
union all
select r.day from outbox.retiring as r
limit 1
"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """`past_jobs` ended on each of `over_age` days that are to be retired."""

    jobs: int = 100_000
    rounds: int = 3
    over_age: int = 4
    past_jobs: int = 10_000
    url: str | None = None


def measure(options: Options, said: Said) -> Figures:
    """Return the figures."""
    with (
        arena(options.url) as place,
        place.filled(partial(fill_noop, jobs=options.jobs)) as young,
        place.filled(partial(_fill_old, options=options)) as old,
    ):
        kinds: dict[str, Callable[[], Round]] = {
            "young": partial(_round, place, young, options.jobs, upkeep=False),
            "old": partial(_round, place, old, options.jobs, upkeep=False),
            "upkeep": partial(_round, place, old, options.jobs, upkeep=True),
        }
        found = interleaved(kinds, rounds=options.rounds, said=said)
        rates = {name: figures["jobs_per_s"] for name, figures in found.items()}
        return {
            "benchmark": "upkeep",
            "ratio_to_old": ratio(rates["upkeep"], rates["old"]),
            "old_ratio_to_young": ratio(rates["old"], rates["young"]),
            **{f"{name}_jobs_per_s": rate for name, rate in rates.items()},
            **{
                f"{name}_enqueue_ms_{which}": figures[f"enqueue_ms_{which}"]
                for name, figures in found.items()
                for which in ("p99", "max")
            },
            "retired_days": found["upkeep"]["retired_days"],
            "pruned_jobs": found["upkeep"]["pruned_jobs"],
            "jobs": options.jobs,
            "rounds": options.rounds,
            **machine(place.version()),
        }


def _fill_old(place: Place, options: Options) -> None:
    with place.connect() as connection:
        for age in range(RETENTION_DAYS + options.over_age, 0, -2):
            connection.execute(
                "select outbox.make_partitions(0, clock_timestamp() - make_interval(days => %s))",
                (age - 1,),
            )
        for age in range(options.over_age):
            row = connection.execute(
                "select date_trunc('day', clock_timestamp() - make_interval(days => %s), 'utc')",
                (RETENTION_DAYS + 1 + age,),
            ).fetchone()
            assert row is not None
            parameters = {"at": row[0], "jobs": options.past_jobs, "queue": QUEUE}
            connection.execute(PAST, parameters)
    fill_noop(place, options.jobs)
    with place.connect() as connection:
        settle(connection)


def _round(server: Arena, template: str, jobs: int, *, upkeep: bool) -> Round:
    with server.clone(template) as place, place.connect() as connection:
        days, keys = _kept(connection)
        if not upkeep:
            connection.execute("update outbox.setting set retention_s = 315360000")
        with Child(DispatchNoop(url=place.url)) as dispatcher, _probing(place) as waits_s:
            dispatcher.ready(Ready)
            began = resume(connection, QUEUE)
            took_s = until_empty(connection) - began
            if upkeep:  # a short drain is over before all days are
                until_none(connection, LEFT_TO_RETIRE)
        days_left, keys_left = _kept(connection)
        return {
            "jobs_per_s": jobs / took_s,
            "enqueue_ms_p99": quantile(waits_s, 0.99) * 1000,
            "enqueue_ms_max": max(waits_s) * 1000,
            "retired_days": days - days_left,
            "pruned_jobs": keys - keys_left,
        }


def _kept(connection: Connection) -> tuple[int, int]:
    """Return how many days there are, and how many keys."""
    row = connection.execute(
        "select (select count(*) from outbox.days_of('outbox.job')),"
        " (select count(*) from outbox.job_key)"
    ).fetchone()
    assert row is not None
    return int(str(row[0])), int(str(row[1]))


@contextlib.contextmanager
def _probing(place: Place) -> Iterator[list[float]]:
    """Enqueue and roll back until the block ends; yield how long each took."""
    over = threading.Event()
    waits_s: list[float] = []

    def probe() -> None:
        with place.connect() as connection:
            while not over.wait(PROBE_PAUSE_S):
                began = time.perf_counter()
                with connection.transaction(force_rollback=True):
                    connection.execute(
                        "select from outbox.enqueue(jsonb_build_object("
                        "'queue', %s::text, 'payload', '{}'::jsonb))",
                        (QUEUE,),
                    )
                waits_s.append(time.perf_counter() - began)

    thread = threading.Thread(target=probe)
    thread.start()
    try:
        yield waits_s
    finally:
        over.set()
        thread.join()

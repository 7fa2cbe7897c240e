"""Drain jobs without a key while many follow one head that fails, beside draining them alone.

Two more kinds show what keys themselves cost: the same jobs spread over many keys, and one key by
itself, whose jobs go one after the other.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial

from outbox_bench.arena import Arena, Connection, Place, arena
from outbox_bench.children import Child
from outbox_bench.figures import Figures, Round, Said, interleaved, machine, ratio
from outbox_bench.noop import QUEUE
from outbox_bench.orders import DispatchNoop, Ready
from outbox_bench.store import DRAIN_S_MAX, FILL_JOBS, POLL_S, handle, pause, resume, settle

FILL = """
select count(*) from outbox.enqueue_many_v1(array(
    select jsonb_build_object('queue', %(queue)s::text,
                              'payload', jsonb_build_object('text', repeat('x', 400), 'fails',
                                                            %(fails)s and %(start)s + n = 1),
                              'ordering_key', case %(keys)s::int when 0 then null
                                                   else (n %% %(keys)s)::text end)
    from generate_series(1, %(jobs)s) as n))"""
LAST = "select id from outbox.entry where id > %s order by id desc limit 1"


@dataclass(frozen=True, kw_only=True)
class Options:
    """`jobs` are what is timed; `followers` stand behind the head that fails."""

    jobs: int = 50_000
    followers: int = 100_000
    keys: int = 1_000
    key_jobs: int = 2_000
    rounds: int = 3
    url: str | None = None


def measure(options: Options, said: Said) -> Figures:
    """Return the rates, and the ratio with followers to without."""
    alone = partial(_fill, jobs=options.jobs)
    with (
        arena(options.url) as server,
        server.filled(alone) as without,
        server.filled(partial(_fill, jobs=options.jobs, followers=options.followers)) as behind,
        server.filled(partial(_fill, jobs=options.jobs, keys=options.keys)) as keyed,
        server.filled(partial(_fill, jobs=options.key_jobs, keys=1)) as single,
    ):
        found = interleaved(
            {
                "alone": partial(_round, server, without, options.jobs),
                "followers": partial(_round, server, behind, options.jobs),
                "keys": partial(_round, server, keyed, options.jobs),
                "one key": partial(_round, server, single, options.key_jobs),
            },
            rounds=options.rounds,
            said=said,
        )
        rates = {name: kind["jobs_per_s"] for name, kind in found.items()}
        return {
            "benchmark": "ordering",
            "jobs_per_s": rates["followers"],
            "alone_jobs_per_s": rates["alone"],
            "ratio_to_alone": ratio(rates["followers"], rates["alone"]),
            "many_keys_jobs_per_s": rates["keys"],
            "many_keys_ratio_to_alone": ratio(rates["keys"], rates["alone"]),
            "one_key_jobs_per_s": rates["one key"],
            "jobs": options.jobs,
            "followers": options.followers,
            "keys": options.keys,
            "rounds": options.rounds,
            **machine(server.version()),
        }


def _fill(place: Place, *, jobs: int, followers: int = 0, keys: int = 0) -> None:
    """Have jobs wait in a paused queue, behind those that follow a head that fails."""
    with place.connect() as connection:
        handle(connection, QUEUE)
        pause(connection, QUEUE)
        _enqueue(connection, followers, keys=1, fails=True)
        connection.execute(
            "create table public.bench as select coalesce(max(id), 0) as id from outbox.entry"
        )
        _enqueue(connection, jobs, keys=keys, fails=False)
        settle(connection)


def _enqueue(connection: Connection, jobs: int, *, keys: int, fails: bool) -> None:
    for start in range(0, jobs, FILL_JOBS):
        count = min(FILL_JOBS, jobs - start)
        connection.execute(
            FILL, {"queue": QUEUE, "fails": fails, "start": start, "keys": keys, "jobs": count}
        )


def _round(server: Arena, template: str, jobs: int) -> Round:
    with (
        server.clone(template) as place,
        Child(DispatchNoop(url=place.url, may_fail=True)) as dispatcher,
        place.connect() as connection,
    ):
        dispatcher.ready(Ready)
        row = connection.execute("select id from public.bench").fetchone()
        assert row is not None
        began = resume(connection, QUEUE)
        deadline = began + DRAIN_S_MAX
        while connection.execute(LAST, row).fetchone():
            if time.monotonic() > deadline:
                raise TimeoutError("the jobs were not drained in time")
            time.sleep(POLL_S)
        return {"jobs_per_s": jobs / (time.monotonic() - began)}

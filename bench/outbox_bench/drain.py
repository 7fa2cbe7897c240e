"""Drain a backlog of no-op jobs by one and two dispatcher processes, beside the plain-SQL floor.

The clock runs from the moment the queue is resumed, with all processes ready, until the last
entry is gone.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from outbox_bench.arena import Arena, Place, arena
from outbox_bench.children import Child
from outbox_bench.figures import Figures, Round, Said, interleaved, machine, ratio
from outbox_bench.noop import QUEUE
from outbox_bench.orders import DispatchNoop, Floor, Ready
from outbox_bench.store import fill_noop, resume, until_empty, wal_lsn, wal_since
from outbox_bench.usage import children_of, cpu_s, rss_mb_peak, total, us_per

WAITING_RUN_S = 10.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """`waiting`: how many jobs wait while a dispatcher's memory is looked at; 0: don't."""

    jobs: int = 100_000
    rounds: int = 3
    processes: tuple[int, ...] = (1, 2)
    waiting: int = 0
    url: str | None = None


def measure(options: Options, said: Said) -> Figures:
    """Return the figures; those of the first of `processes` at the top."""
    with arena(options.url) as place:
        kinds: dict[str, Callable[[], Round]] = {}
        with place.filled(partial(fill_noop, jobs=options.jobs)) as template:
            for processes in options.processes:
                for name, kind in (("floor", Floor), ("outbox", DispatchNoop)):
                    kinds[f"{name} {processes}"] = partial(
                        _round, place, template, kind, processes, options.jobs
                    )
            found = interleaved(kinds, rounds=options.rounds, said=said)
        memory = _memory_with(place, options.waiting) if options.waiting else {}
        by_processes = {
            str(n): _compared(found[f"outbox {n}"], found[f"floor {n}"]) for n in options.processes
        }
        first = by_processes[str(options.processes[0])]
        return {
            "benchmark": "drain",
            **first,
            "jobs": options.jobs,
            "rounds": options.rounds,
            "processes": by_processes,
            **memory,
            **machine(place.version()),
        }


def _compared(ours: Round, floor: Round) -> Figures:
    return {
        "jobs_per_s": ours["jobs_per_s"],
        "floor_jobs_per_s": floor["jobs_per_s"],
        "ratio_to_floor": ratio(ours["jobs_per_s"], floor["jobs_per_s"]),
        "wal_bytes_per_job": ours["wal_bytes_per_job"],
        "wal_image_bytes_per_job": ours["wal_image_bytes_per_job"],
        "floor_wal_bytes_per_job": floor["wal_bytes_per_job"],
        "worker_cpu_us_per_job": ours["worker_cpu_us"],
        "postgres_cpu_us_per_job": ours["postgres_cpu_us"],
        "floor_worker_cpu_us_per_job": floor["worker_cpu_us"],
        "floor_postgres_cpu_us_per_job": floor["postgres_cpu_us"],
        "rss_mb_peak": ours["rss_mb"],
    }


def _round(
    server: Arena, template: str, kind: type[Floor | DispatchNoop], processes: int, jobs: int
) -> Round:
    with server.clone(template) as place, contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(Child(kind(url=_url_for(kind, place)))) for _ in range(processes)
        ]
        for worker in workers:
            worker.ready(Ready)
        connection = stack.enter_context(place.connect())
        before_lsn = wal_lsn(connection)
        pids = [worker.pid for worker in workers]
        before, server_before = _cpu(pids), cpu_s(server.server_pid)
        if kind is Floor:
            began = time.monotonic()
            for worker in workers:
                worker.go()
        else:
            began = resume(connection, QUEUE)
        ended = until_empty(connection)
        after, server_after = _cpu(pids), cpu_s(server.server_pid)
        wal = wal_since(connection, before_lsn)
        rss = None if kind is Floor else max(filter(None, map(rss_mb_peak, pids)), default=None)
    return {
        "jobs_per_s": jobs / (ended - began),
        "worker_cpu_us": us_per(_spent(before, after), jobs),
        "postgres_cpu_us": us_per(_spent(server_before, server_after), jobs),
        "wal_bytes_per_job": wal.record_bytes / jobs,
        "wal_image_bytes_per_job": None if wal.image_bytes is None else wal.image_bytes / jobs,
        "rss_mb": rss,
    }


def _url_for(kind: type[Floor | DispatchNoop], place: Place) -> str:
    return place.admin_url if kind is Floor else place.url


def _cpu(pids: list[int]) -> float | None:
    return total(cpu_s(pid) for pid in pids)


def _spent(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


def _memory_with(server: Arena, waiting: int) -> Figures:
    """Return how much memory a dispatcher needs while it works at a large backlog."""
    with (
        server.fresh(partial(fill_noop, jobs=waiting)) as place,
        Child(DispatchNoop(url=place.url)) as dispatcher,
        place.connect() as connection,
    ):
        dispatcher.ready(Ready)
        resume(connection, QUEUE)
        time.sleep(WAITING_RUN_S)
        renderers = total(map(rss_mb_peak, children_of(dispatcher.pid)))
        return {
            "waiting": waiting,
            "waiting_rss_mb_peak": rss_mb_peak(dispatcher.pid),
            "waiting_renderer_rss_mb_peak": renderers,
        }

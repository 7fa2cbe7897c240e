"""What large tenants cost small ones: a thousand tenants of which ten have a backlog.

Each quiet tenant hands in one job, one tenant after the other, evenly over the run. The noisy ones
have so many jobs waiting that they are never through. A delivery takes a few milliseconds, so the
dispatcher's slots are always full. The wait is the store's own: from when the job was accepted (in
whole ms) until its attempt started. The same without the backlog is the floor.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from outbox_bench.arena import Arena, Connection, Place, arena
from outbox_bench.children import Child
from outbox_bench.figures import Figures, Round, Said, interleaved, machine, quantile, ratio
from outbox_bench.noop import QUEUE
from outbox_bench.orders import DispatchNoop, Ready
from outbox_bench.store import FILL, FILL_JOBS, handle, pause, resume, settle

ENDED_S_MAX = 60.0
NOISY, QUIET = "noisy-%", "quiet-%"


@dataclass(frozen=True, kw_only=True)
class Options:
    """`backlog`: jobs of each noisy tenant; `work_ms`: how long a delivery takes."""

    tenants: int = 1_000
    noisy: int = 10
    backlog: int = 5_000
    seconds: float = 8.0
    work_ms: float = 5.0
    rounds: int = 3
    url: str | None = None


def measure(options: Options, said: Said) -> Figures:
    """Return the quiet tenants' waits with and without neighbours."""
    with arena(options.url) as place, contextlib.ExitStack() as stack:
        kinds: dict[str, Callable[[], Round]] = {}
        for name, backlog in (("alone", 0), ("beside", options.backlog)):
            fill = partial(_fill, options=options, backlog=backlog)
            template = stack.enter_context(place.filled(fill))
            kinds[name] = partial(_round, place, template, options)
        found = interleaved(kinds, rounds=options.rounds, said=said)
        alone, beside = found["alone"], found["beside"]
        return {
            "benchmark": "fairness",
            "quiet_p50_ms": beside["p50_ms"],
            "quiet_p99_ms": beside["p99_ms"],
            "alone_p50_ms": alone["p50_ms"],
            "alone_p99_ms": alone["p99_ms"],
            "ratio_p99": ratio(beside["p99_ms"], alone["p99_ms"]),
            "noisy_per_s": beside["noisy_per_s"],
            "noisy_left": beside["noisy_left"],
            "tenants": options.tenants,
            "noisy": options.noisy,
            "backlog": options.backlog,
            "work_ms": options.work_ms,
            "rounds": options.rounds,
            **machine(place.version()),
        }


def _fill(place: Place, *, options: Options, backlog: int) -> None:
    with place.connect() as connection:
        handle(connection, QUEUE)
        for kind, count in (("noisy", options.noisy), ("quiet", options.tenants - options.noisy)):
            connection.execute(
                "insert into outbox.tenant (tenant_id)"
                " select %s || '-' || n from generate_series(1, %s) as n",
                (kind, count),
            )
        pause(connection, QUEUE)
        for number in range(1, options.noisy + 1):
            for start in range(0, backlog, FILL_JOBS):
                jobs = min(FILL_JOBS, backlog - start)
                connection.execute(
                    FILL.replace(" as n))", " as n), %s)"), (QUEUE, jobs, f"noisy-{number}")
                )
        settle(connection)


def _round(server: Arena, template: str, options: Options) -> Round:
    with server.clone(template) as place, place.connect() as connection:
        order = DispatchNoop(url=place.url, work_ms=options.work_ms)
        with Child(order) as dispatcher:
            dispatcher.ready(Ready)
            began = resume(connection, QUEUE)
            quiet = options.tenants - options.noisy
            for number in range(1, quiet + 1):
                time.sleep(max(0.0, began + options.seconds * number / quiet - time.monotonic()))
                job = json.dumps({"queue": QUEUE, "payload": {}})
                connection.execute(
                    "select from outbox.enqueue(%s::jsonb, %s, notify => true)",
                    (job, f"quiet-{number}"),
                )
            _until_none(connection, QUIET)
            left = _count(connection, NOISY)
            took_s = time.monotonic() - began
        waits_ms = [
            float(str(row[0]))
            for row in connection.execute(
                "select extract(epoch from d.started_at - outbox.id_time(d.id))::float8 * 1000"
                " from outbox.delivery as d where d.tenant_id like %s",
                (QUIET,),
            ).fetchall()
        ]
        if len(waits_ms) != quiet:
            raise RuntimeError(f"{len(waits_ms)} attempts of {quiet} quiet jobs")
        done = connection.execute(
            "select count(*) from outbox.delivery where tenant_id like %s", (NOISY,)
        ).fetchone()
        assert done is not None
        return {
            "p50_ms": quantile(waits_ms, 0.5),
            "p99_ms": quantile(waits_ms, 0.99),
            "noisy_per_s": float(str(done[0])) / took_s,
            "noisy_left": float(left),
        }


def _until_none(connection: Connection, tenants: str) -> None:
    deadline = time.monotonic() + ENDED_S_MAX
    while _count(connection, tenants):
        if time.monotonic() > deadline:
            raise TimeoutError("quiet tenants' jobs were not delivered in time")
        time.sleep(0.05)


def _count(connection: Connection, tenants: str) -> int:
    row = connection.execute(
        "select count(*) from outbox.lane as l join outbox.entry as e on e.lane_id = l.lane_id"
        " where l.tenant_id like %s",
        (tenants,),
    ).fetchone()
    assert row is not None
    return int(str(row[0]))

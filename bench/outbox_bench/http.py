"""POSTs over HTTP, single and in batches, beside an empty handler on the same kind of server.

The empty handler reads the body and answers: no key, no check, no store. Both servers stay up and
take turns, so that a slow machine is slow for both. No dispatcher runs meanwhile.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
from dataclasses import dataclass
from functools import partial

from outbox_bench.arena import Place, arena
from outbox_bench.children import Child
from outbox_bench.figures import Figures, Round, Said, interleaved, machine, ratio
from outbox_bench.orders import Load, Loaded, Ready, Serve
from outbox_bench.usage import cpu_s, us_per

ADMIN_KEY = "obx_bench_key_of_no_other_use"


@dataclass(frozen=True, kw_only=True)
class Options:
    """`seconds` of each round and kind; `batch`: jobs in a batch POST."""

    seconds: float = 5.0
    rounds: int = 3
    connections: int = 32
    batch: int = 1_000
    batch_connections: int = 2
    url: str | None = None


def measure(options: Options, said: Said) -> Figures:
    """Return the figures."""
    if shutil.which("wrk") is None:
        said("no wrk here: the client is Python on bare sockets, and takes more of the cores")
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(arena(options.url))
        place = stack.enter_context(server.fresh(_fill))
        ports = free_port(), free_port()
        api, empty = (
            stack.enter_context(
                Child(Serve(url=place.url, port=port, admin_key=ADMIN_KEY, empty=n == 1))
            )
            for n, port in enumerate(ports)
        )
        for process in (api, empty):
            process.ready(Ready)
        single = Load(
            port=ports[0],
            path="/api/v1/jobs",
            key=ADMIN_KEY,
            connections=options.connections,
            seconds=options.seconds,
        )
        batch = {
            "path": "/api/v1/jobs/batch",
            "batch": options.batch,
            "connections": options.batch_connections,
        }
        orders: dict[str, tuple[Child, Load]] = {
            "empty": (empty, _changed(single, port=ports[1])),
            "single": (api, single),
            "array": (api, _changed(single, **batch, body="array")),
            "ndjson": (api, _changed(single, **batch, body="ndjson")),
        }
        clients: set[str] = set()
        found = interleaved(
            {
                name: partial(_round, process, server.server_pid, order, clients)
                for name, (process, order) in orders.items()
            },
            rounds=options.rounds,
            said=said,
        )
        _require_stored(place)
        return {
            "benchmark": "http",
            "posts_per_s": found["single"]["per_s"],
            "empty_per_s": found["empty"]["per_s"],
            "ratio_to_empty": ratio(found["single"]["per_s"], found["empty"]["per_s"]),
            "post_p50_ms": found["single"]["p50_ms"],
            "post_p99_ms": found["single"]["p99_ms"],
            "api_cpu_us": found["single"]["api_cpu_us"],
            "postgres_cpu_us": found["single"]["postgres_cpu_us"],
            "empty_cpu_us": found["empty"]["api_cpu_us"],
            "batch_array_jobs_per_s": found["array"]["per_s"],
            "batch_ndjson_jobs_per_s": found["ndjson"]["per_s"],
            "batch_api_cpu_us_per_job": found["array"]["api_cpu_us"],
            "batch_postgres_cpu_us_per_job": found["array"]["postgres_cpu_us"],
            "batch_p50_ms": found["array"]["p50_ms"],
            "batch": options.batch,
            "connections": options.connections,
            "rounds": options.rounds,
            "client": ", ".join(sorted(clients)),
            **machine(server.version()),
        }


def _fill(place: Place) -> None:
    with place.connect() as connection:
        connection.execute(
            "insert into outbox.template (tenant_id, code, channel, locale, version, body_text)"
            " values ('default', 'welcome', 'email', 'ru', 1, 'Здравствуйте!')"
        )


def _changed(order: Load, **changes: object) -> Load:
    import msgspec

    return msgspec.structs.replace(order, **changes)


def _round(process: Child, server_pid: int | None, order: Load, clients: set[str]) -> Round:
    with Child(order) as client:
        client.ready(Ready)
        before = cpu_s(process.pid), cpu_s(server_pid)
        client.go()
        loaded = client.told(Loaded)
        after = cpu_s(process.pid), cpu_s(server_pid)
    clients.add(loaded.client)
    if loaded.errors:
        raise RuntimeError(f"{loaded.errors} of {loaded.requests} requests failed")
    jobs = loaded.requests * order.batch
    spent = [None if b is None or a is None else a - b for b, a in zip(before, after, strict=True)]
    return {
        "per_s": jobs / loaded.took_s,
        "p50_ms": loaded.p50_ms,
        "p99_ms": loaded.p99_ms,
        "api_cpu_us": us_per(spent[0], jobs),
        "postgres_cpu_us": us_per(spent[1], jobs),
    }


def _require_stored(place: Place) -> None:
    """Raise RuntimeError unless there is something to show for it."""
    with place.connect() as connection:
        if connection.execute("select from outbox.job limit 1").fetchone() is None:
            raise RuntimeError("nothing was stored")


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

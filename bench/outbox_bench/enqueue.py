"""Handing jobs in: one by one and in batches, beside bare inserts of the same three rows.

Everything that a door does is in it: validation, idempotency, lanes. No dispatcher runs.

    single      begin, `outbox.enqueue`, commit      beside   begin, three inserts, commit
    statement   `select … outbox.enqueue(…)` alone   beside   the three inserts in one statement
    batch       `outbox.enqueue_many`                beside   `unnest` into all three at once
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial

from outbox_bench.arena import Arena, Place, arena
from outbox_bench.children import Child
from outbox_bench.figures import Figures, Round, Said, interleaved, machine, ratio
from outbox_bench.orders import Done, Insert, Ready
from outbox_bench.store import settle, wal_lsn, wal_since
from outbox_bench.usage import cpu_s, us_per


@dataclass(frozen=True, kw_only=True)
class Options:
    """`seconds` of each round and kind; `singles`, `batches`: connections that hand in at once."""

    seconds: float = 3.0
    rounds: int = 3
    batch: int = 1_000
    singles: int = 8
    batches: int = 2
    url: str | None = None


def measure(options: Options, said: Said) -> Figures:
    """Return the figures."""
    with arena(options.url) as server, server.filled(_fill) as template:
        single = Insert(url="", seconds=options.seconds, by="sql", connections=options.singles)
        batch = _changed(single, batch=options.batch, connections=options.batches)
        kinds = {
            "bare": _changed(single, by="bare-three"),
            "python": _changed(single, by="python"),
            "bare statement": _changed(single, by="bare"),
            "sql statement": single,
            "bare batch": _changed(batch, by="bare"),
            "sql batch": batch,
            "python batch": _changed(batch, by="python"),
            "python batch, one": _changed(batch, by="python", connections=1),
        }
        found = interleaved(
            {name: partial(_round, server, template, order) for name, order in kinds.items()},
            rounds=options.rounds,
            said=said,
        )
        rate = {name: figures["jobs_per_s"] for name, figures in found.items()}
        return {
            "benchmark": "enqueue",
            "single_per_s": rate["python"],
            "bare_single_per_s": rate["bare"],
            "ratio_to_bare": ratio(rate["python"], rate["bare"]),
            "statement_per_s": rate["sql statement"],
            "bare_statement_per_s": rate["bare statement"],
            "statement_ratio_to_bare": ratio(rate["sql statement"], rate["bare statement"]),
            "batch_jobs_per_s": rate["python batch"],
            "batch_one_connection_jobs_per_s": rate["python batch, one"],
            "batch_sql_jobs_per_s": rate["sql batch"],
            "bare_batch_jobs_per_s": rate["bare batch"],
            "batch_ratio_to_bare": ratio(rate["python batch"], rate["bare batch"]),
            "batch_wal_bytes_per_job": found["python batch"]["wal_bytes_per_job"],
            "batch_postgres_cpu_us_per_job": found["python batch"]["postgres_cpu_us"],
            "single_postgres_cpu_us": found["python"]["postgres_cpu_us"],
            "bare_single_postgres_cpu_us": found["bare"]["postgres_cpu_us"],
            "batch": options.batch,
            "single_connections": options.singles,
            "batch_connections": options.batches,
            "rounds": options.rounds,
            **machine(server.version()),
        }


def _fill(place: Place) -> None:
    with place.connect() as connection:
        connection.execute(
            "insert into outbox.template (tenant_id, code, channel, locale, version, body_text)"
            " values ('default', 'welcome', 'email', 'ru', 1, 'Здравствуйте!')"
        )
        connection.execute("select outbox.lane_of('default', 'email')")
        settle(connection)


def _changed(order: Insert, **changes: object) -> Insert:
    import msgspec

    return msgspec.structs.replace(order, **changes)


def _round(server: Arena, template: str, order: Insert) -> Round:
    with server.clone(template) as place, contextlib.ExitStack() as stack:
        # The doors are for a login without rights of its own; bare inserts need the owner's.
        url = place.admin_url if order.by.startswith("bare") else place.url
        # In two processes, so that a producer does not wait for another's Python.
        shares = [share for share in (-(-order.connections // 2), order.connections // 2) if share]
        producers = [
            stack.enter_context(Child(_changed(order, url=url, connections=share)))
            for share in shares
        ]
        for producer in producers:
            producer.ready(Ready)
        connection = stack.enter_context(place.connect())
        before_lsn, before = wal_lsn(connection), cpu_s(server.server_pid)
        for producer in producers:
            producer.go()
        done = [producer.told(Done) for producer in producers]
        after = cpu_s(server.server_pid)
        wal = wal_since(connection, before_lsn)
    jobs = sum(each.count for each in done)
    spent = None if before is None or after is None else after - before
    return {
        "jobs_per_s": sum(each.count / each.took_s for each in done),
        "postgres_cpu_us": us_per(spent, jobs),
        "wal_bytes_per_job": wal.record_bytes / jobs,
    }

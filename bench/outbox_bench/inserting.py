"""A producer that hands jobs in as fast as it can, by our doors or by bare inserts (in a child).

Bare inserts write the same three rows (key, job, entry) and nothing else: no check, no idempotency
but the unique key, no lane looked up.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias
from uuid import UUID

import psycopg
from psycopg.rows import TupleRow

import outbox
from outbox.message import uuid7
from outbox_bench.child import Line
from outbox_bench.load import HEAD, TAIL
from outbox_bench.orders import Done, Insert, Ready

JOB_COLUMNS = """id, job_id, created_at, lane_id, priority, tenant_id, queue, channel,
    template_code, locale, user_id, event_id, job"""
JOB_VALUES = """n.job_id, '2026-11-14T12:35:10Z', %(lane)s, 1, 'default', 'email', 'email',
    'welcome', 'ru', 'f3aa4a0e-97d4-4e21-a2b4-9fb7c8d9f001',
    '6a9f7f26-4c0c-4a91-9f3d-b159c2dcb001', n.job"""
BARE = f"""
with n as materialized (
    select n.*, outbox.next_id() as id
    from unnest(%(ids)s::uuid[], %(hashes)s::bytea[], %(jobs)s::jsonb[]) as n(job_id, hash, job)
), k as (
    insert into outbox.job_key (tenant_id, job_id, id, content_sha256)
    select 'default', n.job_id, n.id, n.hash from n
), j as (
    insert into outbox.job ({JOB_COLUMNS}) select n.id, {JOB_VALUES} from n
)
insert into outbox.entry (id, available_at, lane_id, priority)
select n.id, clock_timestamp(), %(lane)s, 1 from n"""
BARE_THREE = (
    """insert into outbox.job_key (tenant_id, job_id, id, content_sha256)
    values ('default', %(job_id)s, outbox.next_id(), %(hash)s) returning id""",
    f"""insert into outbox.job ({JOB_COLUMNS})
    select %(id)s, {JOB_VALUES}
    from (select %(job_id)s::uuid as job_id, %(job)s::jsonb as job) as n""",
    """insert into outbox.entry (id, available_at, lane_id, priority)
    values (%(id)s, clock_timestamp(), %(lane)s, 1)""",
)
SQL_ONE = "select * from outbox.enqueue(%s::jsonb)"
SQL_MANY = "select * from outbox.enqueue_many(%s::jsonb[])"

WARM_TURNS = 6
"""psycopg prepares what it sees for the fifth time."""

Connection: TypeAlias = psycopg.Connection[TupleRow]
Store: TypeAlias = Callable[[Sequence[tuple[UUID, str]]], object]


def insert(order: Insert, line: Line) -> None:
    """Hand jobs in, each a new one, with a UUIDv7."""
    with ThreadPoolExecutor(order.connections) as threads, contextlib.ExitStack() as stack:
        stores = [
            _store(stack.enter_context(psycopg.connect(order.url, autocommit=True)), order)
            for _ in range(order.connections)
        ]
        for store in stores * WARM_TURNS:
            store(_jobs(order.batch))
        line.tell(Ready())
        line.wait_for_go()
        began = time.perf_counter()
        until = began + order.seconds
        turns = sum(threads.map(lambda store: _insert_until(until, store, order.batch), stores))
        line.tell(Done(turns * order.batch, time.perf_counter() - began))


def _insert_until(until: float, store: Store, batch: int) -> int:
    turns = 0
    while time.perf_counter() < until:
        store(_jobs(batch))
        turns += 1
    return turns


def _jobs(count: int) -> list[tuple[UUID, str]]:
    head, tail = HEAD.decode(), TAIL.decode()
    ids = [uuid7() for _ in range(count)]
    return [(job_id, f"{head}{job_id}{tail}") for job_id in ids]


def _store(connection: Connection, order: Insert) -> Store:
    match order.by:
        case "python" if order.batch == 1:
            return _in_transaction(connection)
        case "python":
            return lambda jobs: outbox.enqueue_many(connection, [text for _, text in jobs])
        case "sql" if order.batch == 1:
            return lambda jobs: connection.execute(SQL_ONE, (jobs[0][1],)).fetchone()
        case "sql":
            return lambda jobs: connection.execute(
                SQL_MANY, ([text for _, text in jobs],)
            ).fetchall()
        case "bare":
            return _bare(connection, _lane(connection))
        case "bare-three":
            return _bare_three(connection, _lane(connection))


def _lane(connection: Connection) -> int:
    row = connection.execute(
        "select lane_id from outbox.lane where tenant_id = 'default' and queue = 'email'"
    ).fetchone()
    assert row is not None
    return int(str(row[0]))


def _in_transaction(connection: Connection) -> Store:
    def store(jobs: Sequence[tuple[UUID, str]]) -> object:
        with connection.transaction():
            return outbox.enqueue(connection, jobs[0][1])

    return store


def _bare(connection: Connection, lane: int) -> Store:
    def store(jobs: Sequence[tuple[UUID, str]]) -> object:
        return connection.execute(
            BARE.encode(),
            {
                "ids": [job_id for job_id, _ in jobs],
                "hashes": [hashlib.sha256(text.encode()).digest() for _, text in jobs],
                "jobs": [text for _, text in jobs],
                "lane": lane,
            },
        )

    return store


def _bare_three(connection: Connection, lane: int) -> Store:
    keys, facts, entries = (statement.encode() for statement in BARE_THREE)

    def store(jobs: Sequence[tuple[UUID, str]]) -> object:
        with connection.transaction():
            for job_id, text in jobs:
                values: dict[str, object] = {"job_id": job_id, "job": text, "lane": lane}
                values["hash"] = hashlib.sha256(text.encode()).digest()
                row = connection.execute(keys, values).fetchone()
                assert row is not None
                values["id"] = row[0]
                connection.execute(facts, values)
                connection.execute(entries, values)
        return None

    return store

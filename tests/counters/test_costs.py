"""What a job costs, from enqueue to history, against budgets that each have a reason.

Counted by Postgres for the statements themselves, so it is the same on any machine, busy or idle.
A budget that is exceeded wants a look at what was added, and its reason written here; one that is
far from reached wants to be lowered.
"""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

import msgspec
import pytest

from outbox.store import engine
from outbox.store.engine import Ask
from outbox_sql import query
from tests.counters.watch import Seen, watching
from tests.engine.desk import QUEUE, Desk, Scripted, drain, register, sent

JOBS = 2_000
BATCH = 500
PAYLOAD = {"text": "x" * 400}


@dataclass
class Spent:
    """What all jobs together cost at one step."""

    statements: int = 0
    wal_bytes: int = 0
    buffers: int = 0

    def add(self, seen: list[Seen]) -> None:
        # The outermost statement comes last, and has what the nested ones cost in its sums.
        self.statements += 1
        assert seen[-1].wal_images == 0, "this server writes full-page images: not to be compared"
        self.wal_bytes += seen[-1].wal_bytes
        self.buffers += seen[-1].buffers


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """The most that a job may cost at one step, on average."""

    wal_bytes: float
    buffers: float
    why: str


BUDGETS = {
    "enqueue": Budget(
        wal_bytes=1_200,
        buffers=16,
        why="key (hash, uuid), job (a payload of 400 bytes) and entry: three rows, eight index"
        " entries; most of the buffers are descents of the key's unique index and its partition",
    ),
    "claim": Budget(
        wal_bytes=190,
        buffers=10,
        # Without HOT it is 230 and more: see the fillfactor of outbox.entry.
        why="one HOT update of a narrow row, and reads of the entry's index and of the job",
    ),
    "record": Budget(
        wal_bytes=360,
        buffers=11,
        why="the delete of the entry, the row of history and its two unique indexes",
    ),
}
WAL_BYTES_MAX = 1_700
"""From enqueue to history, payload of 400 bytes included. The spec's own limit is 2,000."""


@pytest.fixture
async def spent(desk: Desk) -> dict[str, Spent]:
    """Take JOBS jobs through enqueue, claim and record."""
    found = {step: Spent() for step in BUDGETS}
    desk.enqueue()  # the lane, and the plans
    desk.admin.execute("delete from outbox.entry")
    async with (
        watching(desk.database, "outbox_producer") as producer,
        watching(desk.database, "outbox_dispatcher") as dispatcher,
    ):
        for _ in range(JOBS // BATCH):
            jobs = [
                {"job_id": str(uuid4()), "queue": QUEUE, "payload": PAYLOAD} for _ in range(BATCH)
            ]
            await producer.connection.execute(
                query("producer_enqueue"),
                {
                    "jobs": msgspec.json.encode(jobs).decode(),
                    "tenant": None,
                    "on_conflict": "raise",
                    "fill_created": True,
                    "notify": False,
                    "traceparent": None,
                },
            )
            found["enqueue"].add(producer.take())
        desk.admin.execute("analyze outbox.entry")
        epoch = await register(dispatcher.connection, 7)
        ask = Ask(lane_id=desk.lane(), room=BATCH)
        dispatcher.take()
        for _ in range(JOBS // BATCH):
            claimed = await engine.claim(dispatcher.connection, [ask], epoch=epoch, lease_s=60)
            assert len(claimed) == BATCH
            found["claim"].add(dispatcher.take())
            outcomes = [sent(c) for c in claimed]
            assert await engine.record(dispatcher.connection, outcomes, [], [], epoch=epoch) == []
            found["record"].add(dispatcher.take())
    return found


async def test_a_job_costs_no_more_wal_and_buffers_than_budgeted(spent: dict[str, Spent]) -> None:
    figures = {
        step: (round(cost.wal_bytes / JOBS), round(cost.buffers / JOBS, 1), cost.statements)
        for step, cost in spent.items()
    }
    over = [
        step
        for step, (wal_bytes, buffers, statements) in figures.items()
        if wal_bytes > BUDGETS[step].wal_bytes
        or buffers > BUDGETS[step].buffers
        or statements > JOBS // BATCH
    ]
    assert over == [], figures
    assert sum(wal_bytes for wal_bytes, _, _ in figures.values()) <= WAL_BYTES_MAX, figures


COMMITS = "select xact_commit from pg_stat_database where datname = current_database()"
DISPATCHER_SESSIONS = """
select count(*) from pg_stat_activity
where datname = current_database() and starts_with(application_name, 'outbox dispatcher')
"""
WRITTEN = """
select relname, n_tup_ins, n_tup_upd, n_tup_hot_upd, n_tup_del
from pg_stat_user_tables where schemaname = 'outbox' and n_tup_ins + n_tup_upd + n_tup_del > 0
"""


async def test_each_job_leaves_two_dead_rows_and_every_claim_is_hot(desk: Desk) -> None:
    desk.admin.execute("alter table outbox.entry set (autovacuum_enabled = false)")
    desk.admin.execute(
        "select from outbox.enqueue_many_v1(array(select jsonb_build_object("
        "'queue', %s::text, 'payload', '{}'::jsonb) from generate_series(1, %s)))",
        (QUEUE, JOBS),
    )
    before = desk.value(COMMITS)
    await drain(desk, {QUEUE: Scripted()})
    # A session's last counts arrive when it has ended.
    await desk.until(lambda: desk.value(DISPATCHER_SESSIONS) == 0)
    desk.admin.execute("select pg_stat_force_next_flush()")
    written = {row[0]: row[1:] for row in desk.rows(WRITTEN)}
    inserted, updated, hot, deleted = written["entry"]
    assert (inserted, deleted) == (JOBS, JOBS)
    # One update a job, its claim; a few are handed back and claimed again. Pages are half full, so
    # that the second version of a row finds room beside the first.
    assert JOBS <= updated <= 1.05 * JOBS
    assert hot >= 0.99 * updated
    # The claim's old version and the deleted entry; facts, keys and history are never changed.
    dead = sum(row[1] + row[3] for name, row in written.items() if name != "dispatcher")
    assert dead <= 2.1 * JOBS
    history = [row for name, row in written.items() if name.startswith(("job", "delivery"))]
    assert all(row[1] == row[3] == 0 for row in history)
    after = desk.value(COMMITS)
    # Claims of up to 1,000 and records of up to 500; the rest is heartbeats and starting up, which
    # grow with the time that a busy machine takes.
    assert after - before <= 0.2 * JOBS

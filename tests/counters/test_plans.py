"""The hot statements look at their own rows alone, however many there are besides."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import msgspec
import pytest

from outbox.message import Epoch, LaneId
from outbox.store import engine
from outbox.store.engine import Ask
from outbox_sql import query
from tests.counters.conftest import BACKLOG, LANES
from tests.counters.watch import Watch, objections, watching
from tests.engine.desk import Desk, failed, register, retrying, sent

ROOM = 25
"""What a claim asks of each lane."""
CLAIMED = LANES * ROOM


@pytest.fixture
async def dispatcher(backlog: Desk) -> AsyncIterator[Watch]:
    async with watching(backlog.database, "outbox_dispatcher") as watch:
        yield watch


@pytest.fixture
async def epoch(dispatcher: Watch) -> AsyncIterator[Epoch]:
    yield await register(dispatcher.connection, uuid4().int >> 66)
    await dispatcher.connection.execute(
        "update outbox.entry set claimed_by = null, lease_until = null"
        " where claimed_by is not null"
    )
    await dispatcher.connection.execute("delete from outbox.dispatcher")


def asks(desk: Desk) -> list[Ask]:
    lanes = desk.rows("select lane_id from outbox.lane where queue = 'work' order by lane_id")
    return [Ask(lane_id=LaneId(row[0]), room=ROOM) for row in lanes]


async def test_a_claim_reads_the_rows_that_it_takes(
    backlog: Desk, dispatcher: Watch, epoch: Epoch
) -> None:
    dispatcher.take()
    claimed = await engine.claim(dispatcher.connection, asks(backlog), epoch=epoch, lease_s=60)
    assert len(claimed) == CLAIMED
    assert objections(dispatcher.take(), rows_max=2 * CLAIMED) == []


async def test_a_record_reads_the_rows_that_it_ends_and_moves(
    backlog: Desk, dispatcher: Watch, epoch: Epoch
) -> None:
    claimed = await engine.claim(dispatcher.connection, asks(backlog), epoch=epoch, lease_s=60)
    later = datetime.now(UTC) + timedelta(hours=1)
    outcomes = [
        sent(c) if n % 3 else retrying(c, later) if n % 2 else failed(c)
        for n, c in enumerate(claimed)
    ]
    dispatcher.take()
    odd = await engine.record(dispatcher.connection, outcomes, [], [], epoch=epoch)
    assert odd == []
    # Outcomes are joined with themselves, in arrays; no table is read for more than them.
    assert objections(dispatcher.take(), rows_max=3 * CLAIMED) == []
    late = await engine.record(dispatcher.connection, outcomes[:50], [], [], epoch=Epoch(4711))
    assert len(late) == 50
    assert objections(dispatcher.take(), rows_max=3 * CLAIMED) == []


async def test_a_heartbeat_looks_at_dispatchers_alone(dispatcher: Watch, epoch: Epoch) -> None:
    dispatcher.take()
    await engine.heartbeat(dispatcher.connection, epoch=epoch, seen_version=engine.Version(1))
    assert objections(dispatcher.take(), rows_max=500) == []


async def test_the_next_due_times_cost_a_few_probes_a_lane(
    dispatcher: Watch, epoch: Epoch
) -> None:
    dispatcher.take()
    upcoming = await engine.next_due(dispatcher.connection)
    assert len({first.lane_id for first in upcoming}) == LANES
    # Four priorities a lane, and one step between each.
    assert objections(dispatcher.take(), rows_max=LANES * 4 * 4) == []


async def test_a_look_near_the_floors_costs_a_probe_for_each_priority_of_a_lane(
    backlog: Desk, dispatcher: Watch, epoch: Epoch
) -> None:
    dispatcher.take()
    upcoming = await engine.next_due_near(dispatcher.connection, asks(backlog))
    assert len({first.lane_id for first in upcoming}) == LANES
    assert objections(dispatcher.take(), rows_max=LANES * 4 * 2) == []


async def test_expiry_reads_what_it_ends(backlog: Desk, dispatcher: Watch, epoch: Epoch) -> None:
    backlog.admin.execute(
        "update outbox.entry set expires_at = now() - interval '1 second'"
        " where id in (select id from outbox.entry where expires_at is not null limit 100)"
    )
    dispatcher.take()
    expired = await engine.expire(dispatcher.connection, epoch=epoch, limit=50)
    assert expired.ended == 50
    assert objections(dispatcher.take(), rows_max=500) == []


async def test_a_rescue_scans_entries_once_and_nothing_else(
    backlog: Desk, dispatcher: Watch, epoch: Epoch
) -> None:
    claimed = await engine.claim(dispatcher.connection, asks(backlog), epoch=epoch, lease_s=60)
    dispatcher.take()
    lanes = await engine.rescue(dispatcher.connection, dead=[epoch], epoch=Epoch(5), limit=500)
    assert len(lanes) == len(claimed)
    seen = dispatcher.take()
    scans = [n for s in seen for n in s.nodes() if n.table == "entry" and n.kind == "Seq Scan"]
    assert len(scans) <= 1
    assert sum(n.rows_read for n in scans) <= BACKLOG
    assert objections(seen, rows_max=3 * CLAIMED, scans=frozenset({"entry"})) == []


@pytest.mark.parametrize("jobs", [1, 500])
async def test_enqueueing_reads_the_rows_of_its_own_keys(backlog: Desk, jobs: int) -> None:
    # What was handed in before is looked up again: half of it is.
    old = [row[0] for row in backlog.rows("select job_id from outbox.job limit %s", jobs // 2)]
    ids = old + [uuid4() for _ in range(jobs - len(old))]
    handed_in = [
        {"job_id": str(i), "queue": "work", "payload": {}, "tenant_id": "tenant-1"} for i in ids
    ]
    backlog.admin.execute(
        "insert into outbox.producer_tenant values ('outbox_producer', '*') on conflict do nothing"
    )
    async with watching(backlog.database, "outbox_producer") as producer:
        parameters: dict[str, object] = {
            "jobs": msgspec.json.encode(handed_in if jobs > 1 else handed_in[0]).decode(),
            "tenant": None,
            "on_conflict": "skip",
            "fill_created": True,
            "notify": False,
            "traceparent": None,
        }
        name = "producer_enqueue" if jobs > 1 else "producer_enqueue_one"
        for _ in range(2):  # the second time, all of them are duplicates
            await producer.connection.execute(query(name), parameters)
            assert objections(producer.take(), rows_max=8 * jobs + 200) == []


FOLLOWED = 20_000
LONG_AGO = """
insert into outbox.outcome_log (at, xid, lane_id, ids, lease_nos)
select date_trunc('second', now()) - n * interval '20 s', '3', 1,
       array[outbox.id_floor(now() - interval '1 hour') + n], array[1]
from generate_series(1, %(rows)s) as n
"""
LATELY = """
insert into outbox.stat_second (at, xid, lane_id, sent, ids, lease_nos)
select date_trunc('second', now()) - (60 + n %% 1200) * interval '1 s', '3', 1, 1,
       array[outbox.id_floor(now() - interval '1 hour') + n], array[1]
from generate_series(1, %(rows)s) as n
"""
SAID = """
insert into outbox.progress (id, at, xid, done, total, lease_no, tenant_id)
select n, now() - interval '1 minute', '3', 1, 2, 1, 'default'
from generate_series(1, %(rows)s) as n
"""


async def test_following_reads_what_is_new_alone(backlog: Desk) -> None:
    """However long history is, and whoever reports besides."""
    for statement in (LONG_AGO, LATELY, SAID):
        backlog.admin.execute(statement.encode(), {"rows": FOLLOWED})
    snapshot = "select pg_current_snapshot()::text"
    before = backlog.value(snapshot)
    after = backlog.value("select max(id) from outbox.job")
    now = backlog.value("select date_trunc('second', clock_timestamp())")
    for _ in range(5):
        backlog.enqueue(expires_at="2020-01-01T00:00:00Z")
    seen = backlog.value(snapshot)
    place = {"from_at": now, "after_second": now, "after_id": -1, "after_rank": -1}
    marks = {"before": before, "seen": seen}
    found = {}
    async with watching(backlog.database, "outbox_api") as watch:
        await watch.connection.execute("select set_config('outbox.tenant', '*', false)")
        for name, parameters in (
            ("stream_jobs", {"after": after, "rows_max": 5_000}),
            ("stream_outcomes", place | {"rows_max": 500}),
            ("stream_progress", place | {"rows_max": 500}),
        ):
            watch.take()
            cursor = await watch.connection.execute(query(name), marks | parameters)
            found[name] = len(await cursor.fetchall())
            # Other tests have just recorded some hundreds.
            assert objections(watch.take(), rows_max=FOLLOWED // 10) == [], name
    assert found == {"stream_jobs": 5, "stream_outcomes": 5, "stream_progress": 0}

"""One job_id makes one job (invariants 2 and 7), whoever else is at it."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.rows import TupleRow

import outbox
from outbox.enqueue import IDEMPOTENCY_NAMESPACE
from tests.contract_cases import addressed, job
from tests.postgres import Database

Connection = psycopg.Connection[TupleRow]
T = TypeVar("T")

TABLES = ("job_key", "job", "entry", "delivery", "stat_second", "lane")


def good(**changes: object) -> dict[str, object]:
    return addressed(**{"job_id": str(outbox.uuid7()), **changes})


def count(connection: Connection, table: str, job_id: object = None) -> int:
    where = "" if job_id is None else " where job_id = %s"
    row = connection.execute(
        f"select count(*) from outbox.{table}{where}",
        None if job_id is None else (job_id,),
    ).fetchone()
    assert row is not None
    return int(row[0])


def wait_until_blocked(admin: Connection, pid: int) -> None:
    """Return once that backend waits for a lock; the database's own view is the signal."""
    deadline = datetime.now(UTC).timestamp() + 30
    while datetime.now(UTC).timestamp() < deadline:
        row = admin.execute("select cardinality(pg_blocking_pids(%s))", (pid,)).fetchone()
        assert row is not None
        if row[0]:
            return
    pytest.fail("nothing waited")


def in_a_thread(function: Callable[[], T]) -> Future[T]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(function)
    pool.shutdown(wait=False)
    return future


def test_the_same_job_again_is_a_duplicate_with_its_status(connection: Connection) -> None:
    wanted = good()
    assert outbox.enqueue(connection, wanted).status == "pending"
    again = outbox.enqueue(connection, wanted)
    assert (again.duplicate, again.status, again.job_id) == (
        True,
        "pending",
        UUID(str(wanted["job_id"])),
    )
    assert count(connection, "job", wanted["job_id"]) == 1


def test_what_says_the_same_is_the_same_content(connection: Connection) -> None:
    wanted = job(job_id=str(outbox.uuid7()), channel="inbox")
    outbox.enqueue(connection, wanted)
    for same in (
        {**wanted, "job_id": str(wanted["job_id"]).upper()},
        {**wanted, "channel": "database"},
        {**wanted, "category": None, "send_after": None},
        dict(reversed(list(wanted.items()))),
    ):
        assert outbox.enqueue(connection, same).duplicate


def test_the_same_id_with_other_content_is_a_conflict_and_stores_nothing(
    connection: Connection,
) -> None:
    wanted, fresh = good(), good()
    outbox.enqueue(connection, wanted)
    for changed in (
        {**wanted, "content": "other"},
        {**wanted, "created_at": "2025-11-14T12:35:11Z"},
        {**wanted, "data": {"first_name": "Нуржан "}},
    ):
        with pytest.raises(outbox.JobConflict) as error, connection.transaction():
            outbox.enqueue_many(connection, [fresh, changed])
        assert error.value.job_ids == (UUID(str(wanted["job_id"])),)
        assert count(connection, "job_key", fresh["job_id"]) == 0


def test_skipping_conflicts_stores_the_others(connection: Connection) -> None:
    wanted, fresh = good(), good()
    outbox.enqueue(connection, wanted)
    results = outbox.enqueue_many(
        connection, [fresh, {**wanted, "content": "other"}, wanted], on_conflict="skip"
    )
    assert [(r.status, r.duplicate, r.conflict) for r in results] == [
        ("pending", False, False),
        (None, False, True),
        ("pending", True, False),
    ]
    assert count(connection, "job", fresh["job_id"]) == 1


def test_a_job_twice_in_one_batch_is_new_once(connection: Connection) -> None:
    wanted = good()
    results = outbox.enqueue_many(connection, [wanted, good(), wanted])
    assert [r.duplicate for r in results] == [False, False, True]
    assert [r.status for r in results] == ["pending"] * 3


def test_two_contents_under_one_id_in_one_batch_are_a_conflict(connection: Connection) -> None:
    wanted = good()
    with pytest.raises(outbox.JobConflict) as error:
        outbox.enqueue_many(connection, [good(), wanted, good(), {**wanted, "content": "other"}])
    assert error.value.job_ids == (UUID(str(wanted["job_id"])),)
    assert error.value.faults == (
        outbox.Fault("/3/job_id", "is that of job 1 of this batch, with other content"),
    )
    assert str(error.value) == f"job {wanted['job_id']} {error.value.faults[0].message}"


def test_two_tenants_may_use_one_job_id(connection: Connection) -> None:
    wanted = good()
    assert not outbox.enqueue(connection, wanted).duplicate
    other = outbox.enqueue(connection, {**wanted, "content": "other"}, tenant="other")
    assert not other.duplicate
    assert count(connection, "job", wanted["job_id"]) == 2


def test_a_created_at_that_the_store_filled_in_is_no_content(connection: Connection) -> None:
    job_id = outbox.uuid7()

    def typed() -> outbox.Job:
        return outbox.Job(
            job_id=job_id, channel="email", to="a@example.com", content="x", data={}, meta={}
        )

    assert not outbox.enqueue(connection, typed()).duplicate
    assert outbox.enqueue(connection, typed()).duplicate


def test_an_idempotency_key_stands_for_one_job_of_its_tenant(connection: Connection) -> None:
    def typed() -> outbox.Job:
        return outbox.Job(
            idempotency_key="order-42",
            channel="email",
            to="a@example.com",
            content="x",
            data={},
            meta={},
        )

    first = outbox.enqueue(connection, typed())
    assert first.job_id == uuid.uuid5(IDEMPOTENCY_NAMESPACE, "default:order-42")
    assert outbox.enqueue(connection, typed()).duplicate
    assert not outbox.enqueue(connection, typed(), tenant="other").duplicate
    by_sql = connection.execute(
        "select job_id, duplicate from outbox.enqueue(%s::jsonb)",
        ('{"queue": "thumbnails", "payload": {}, "idempotency_key": "ключ 💡"}',),
    ).fetchone()
    assert by_sql == (uuid.uuid5(IDEMPOTENCY_NAMESPACE, "default:ключ 💡"), False)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_the_stores_uuid5_is_everybodys(connection: Connection, name: str) -> None:
    row = connection.execute(
        "select outbox.uuid5(%s, %s)", (IDEMPOTENCY_NAMESPACE, name)
    ).fetchone()
    assert row == (uuid.uuid5(IDEMPOTENCY_NAMESPACE, name),)


def test_a_list_makes_one_job_for_each_address(connection: Connection) -> None:
    addresses = ["b@example.com", "a@example.com", "b@example.com"]
    wanted = good(to=addresses)
    result = outbox.enqueue(connection, wanted)
    job_id = UUID(str(wanted["job_id"]))
    assert result.job_ids == tuple(uuid.uuid5(job_id, address) for address in addresses[:2])
    rows = connection.execute(
        "select job ->> 'to' from outbox.job where list_job_id = %s order by 1", (job_id,)
    ).fetchall()
    assert rows == [("a@example.com",), ("b@example.com",)]
    again = outbox.enqueue(connection, wanted)
    assert (again.duplicate, again.status, again.job_ids) == (True, "pending", result.job_ids)


def test_a_list_with_other_content_is_a_conflict_and_leaves_no_key(
    connection: Connection,
) -> None:
    wanted = good(to=["a@example.com"])
    outbox.enqueue(connection, wanted)
    changed = {**wanted, "to": ["a@example.com", "c@example.com"]}
    (result,) = outbox.enqueue_many(connection, [changed], on_conflict="skip")
    assert (result.conflict, result.status) == (True, None)
    job_id = uuid.uuid5(UUID(str(wanted["job_id"])), "c@example.com")
    assert count(connection, "job_key", job_id) == 0
    assert count(connection, "job", job_id) == 0


def test_a_job_that_has_expired_is_audited_and_never_in_line(connection: Connection) -> None:
    wanted = good(expires_at="2025-11-26T00:00:00Z")
    assert outbox.enqueue(connection, wanted).status == "expired"
    rows = connection.execute(
        "select status, attempt, error_code from outbox.notification_delivery where job_id = %s",
        (wanted["job_id"],),
    ).fetchall()
    assert rows == [("EXPIRED", 0, "job.expired")]
    entry = connection.execute(
        "select from outbox.entry join outbox.job using (id) where job_id = %s",
        (wanted["job_id"],),
    )
    assert entry.fetchone() is None
    again = outbox.enqueue(connection, wanted)
    assert (again.duplicate, again.status) == (True, "expired")


def test_numbers_keep_every_digit(connection: Connection) -> None:
    digits = "12345678901234567890.123456789012345678901234567890"
    whole = 10**200 + 7
    wanted = good(data={"d": Decimal(digits), "n": whole})
    outbox.enqueue(connection, wanted)
    row = connection.execute(
        "select job #>> '{data,d}', job #>> '{data,n}' from outbox.job where job_id = %s",
        (wanted["job_id"],),
    ).fetchone()
    assert row == (digits, str(whole))


def test_fifty_connections_with_one_job_make_one_job(doors: Database) -> None:
    wanted = good()
    start = threading.Barrier(50)

    def hand_in() -> bool:
        with doors.connect() as connection:
            connection.execute("select 1")
            start.wait(60)
            return outbox.enqueue(connection, wanted).duplicate

    with ThreadPoolExecutor(50) as pool:
        futures = [pool.submit(hand_in) for _ in range(50)]
    assert sorted(future.result() for future in futures) == [False] + [True] * 49
    with doors.admin_connect() as admin:
        assert count(admin, "job", wanted["job_id"]) == 1
        assert count(admin, "job_key", wanted["job_id"]) == 1


def test_batches_that_overlap_in_opposite_order_do_not_deadlock(doors: Database) -> None:
    rounds, size = 15, 60
    batches = [[good() for _ in range(size)] for _ in range(rounds)]
    start = threading.Barrier(4)

    def hand_in(turn: int) -> int:
        fresh = 0
        with doors.connect() as connection:
            for batch in batches:
                start.wait(60)
                jobs = batch if turn % 2 else batch[::-1]
                results = outbox.enqueue_many(connection, jobs)
                connection.commit()
                fresh += sum(not result.duplicate for result in results)
        return fresh

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(hand_in, range(4))) == rounds * size


@pytest.mark.parametrize("rival_commits", [True, False])
def test_whoever_meets_a_rival_waits_for_its_end(doors: Database, rival_commits: bool) -> None:
    wanted = good()
    with doors.connect() as rival, doors.connect() as late, doors.admin_connect() as admin:
        outbox.enqueue(rival, wanted)
        answer = in_a_thread(lambda: outbox.enqueue_many(late, [wanted, good()]))
        wait_until_blocked(admin, late.info.backend_pid)
        if rival_commits:
            rival.commit()
        else:
            rival.rollback()
        assert [r.duplicate for r in answer.result(30)] == [rival_commits, False]
        late.commit()
        assert count(admin, "job", wanted["job_id"]) == 1


def test_at_repeatable_read_a_rivals_commit_is_a_serialization_failure(doors: Database) -> None:
    wanted = good()
    with doors.connect() as rival, doors.connect() as late:
        late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        late.execute("select 1")
        outbox.enqueue(rival, wanted)
        rival.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            outbox.enqueue(late, wanted)
        late.rollback()
        assert outbox.enqueue(late, wanted).duplicate


def test_a_rolled_back_transaction_leaves_nothing(database: Database) -> None:
    with database.connect() as connection:
        connection.execute("insert into outbox.handler (kind, name) values ('queue', 'q')")
        connection.commit()
        before = {table: count(connection, table) for table in TABLES}
        outbox.enqueue_many(
            connection,
            [
                {"queue": "q", "payload": {}, "expires_at": "2025-01-01T00:00:00Z"},
                {"queue": "q", "payload": {}},
            ],
        )
        assert count(connection, "job") == before["job"] + 2
        connection.rollback()
        assert {table: count(connection, table) for table in TABLES} == before


def test_a_savepoint_that_is_rolled_back_takes_its_jobs_along(connection: Connection) -> None:
    kept, lost = good(), good()
    outbox.enqueue(connection, kept)
    with connection.transaction(force_rollback=True):
        outbox.enqueue(connection, lost)
    assert count(connection, "job", kept["job_id"]) == 1
    assert count(connection, "job_key", lost["job_id"]) == 0


def test_notify_rings_only_when_the_transaction_commits(doors: Database) -> None:
    with doors.connect(autocommit=True) as listener, doors.connect() as producer:
        listener.execute("listen outbox_bell")
        outbox.enqueue(producer, good(), notify=True)
        assert list(listener.notifies(timeout=0)) == []
        producer.commit()
        (bell,) = listener.notifies(timeout=30, stop_after=1)
        lane = producer.execute(
            "select lane_id from outbox.lane where tenant_id = 'default' and queue = 'email'"
        ).fetchone()
        assert lane is not None
        assert bell.payload == str(lane[0])

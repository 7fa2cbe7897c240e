"""One dedup_key makes one job a window, whoever else is at it."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import TupleRow

import outbox
from outbox_sql import query
from tests.contract_cases import addressed
from tests.postgres import Database

Connection = psycopg.Connection[TupleRow]


def keyed(key: str, policy: str | None = None, **changes: object) -> dict[str, object]:
    """Return a good job with a dedup_key and an id of its own."""
    fields = {"dedup_key": key, "dedup_window_s": 60, "dedup_policy": policy}
    return addressed(**{"job_id": str(outbox.uuid7()), **fields, **changes})


def id_of(job: dict[str, object]) -> UUID:
    return UUID(str(job["job_id"]))


@pytest.fixture
def key() -> str:
    """A key that no other test uses."""
    return str(uuid.uuid4())


def value(connection: Connection, statement: str, *parameters: object) -> Any:
    row = connection.execute(statement.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def status(connection: Connection, job: dict[str, object]) -> str:
    found: str = value(
        connection, "select status from outbox.notification where job_id = %s", id_of(job)
    )
    return found


def jobs_kept(connection: Connection, *jobs: dict[str, object]) -> int:
    found: int = value(
        connection,
        "select count(*) from outbox.job where job_id = any(%s)",
        [id_of(job) for job in jobs],
    )
    return found


def end(connection: Connection, job: dict[str, object], status: str) -> None:
    """End a job as a dispatcher would."""
    connection.execute(
        "with gone as (delete from outbox.entry as e using outbox.job as j"
        " where e.id = j.id and j.job_id = %s returning e.id, e.series)"
        " insert into outbox.delivery (id, finished_at, lease_no, series, attempt, terminal,"
        " status, tenant_id) select id, now(), 1, series, 1, true, %s, 'default' from gone",
        (id_of(job), status),
    )


@pytest.fixture
def admin(doors: Database) -> Any:
    with doors.admin_connect() as connection:
        yield connection
        connection.rollback()


def test_a_second_job_within_the_window_is_a_duplicate_of_the_first(
    connection: Connection, key: str
) -> None:
    first, second = keyed(key), keyed(key, content="other")
    assert not outbox.enqueue(connection, first).duplicate
    answer = outbox.enqueue(connection, second)
    assert (answer.duplicate, answer.job_id, answer.status) == (True, id_of(first), "pending")
    assert jobs_kept(connection, first, second) == 1


def test_the_duplicate_sent_once_more_leads_to_the_same_job_also_after_the_window(
    connection: Connection, key: str, admin: Connection
) -> None:
    first, second = keyed(key), keyed(key)
    for job in (first, second):
        outbox.enqueue(admin, job)
    admin.execute("delete from outbox.dedup")
    answer = outbox.enqueue(admin, second)
    assert (answer.duplicate, answer.job_id) == (True, id_of(first))
    assert value(admin, "select outbox.id_of('default', %s)", id_of(second)) == value(
        admin, "select id from outbox.job where job_id = %s", id_of(first)
    )
    with pytest.raises(outbox.JobConflict):
        outbox.enqueue(admin, {**second, "content": "other"})


def test_keys_of_other_tenants_and_queues_are_others(connection: Connection, key: str) -> None:
    assert not outbox.enqueue(connection, keyed(key)).duplicate
    assert not outbox.enqueue(connection, keyed(key, queue="bulk")).duplicate
    assert not outbox.enqueue(connection, keyed(key), tenant="other").duplicate


def test_after_the_window_the_key_is_free(admin: Connection, key: str) -> None:
    first, second, third = keyed(key), keyed(key), keyed(key)
    outbox.enqueue(admin, first)
    admin.execute("update outbox.dedup set until = clock_timestamp()")
    assert not outbox.enqueue(admin, second).duplicate
    assert outbox.enqueue(admin, third).job_id == id_of(second), "with a window of its own"


@pytest.mark.parametrize("how", ["FAILED", "EXPIRED", "CANCELLED"])
def test_a_job_that_ended_without_being_sent_frees_its_key(
    admin: Connection, key: str, how: str
) -> None:
    first, second = keyed(key), keyed(key)
    outbox.enqueue(admin, first)
    end(admin, first, how)
    assert not outbox.enqueue(admin, second).duplicate


@pytest.mark.parametrize("policy", ["keep", "replace"])
def test_what_was_sent_is_not_sent_again_within_the_window(
    admin: Connection, key: str, policy: str
) -> None:
    first = keyed(key)
    outbox.enqueue(admin, first)
    end(admin, first, "SENT")
    answer = outbox.enqueue(admin, keyed(key, policy))
    assert (answer.duplicate, answer.job_id, answer.status) == (True, id_of(first), "sent")


def test_replace_withdraws_the_one_that_waits_and_says_for_whom(
    admin: Connection, key: str
) -> None:
    first, second = keyed(key), keyed(key, "replace")
    outbox.enqueue(admin, first)
    assert not outbox.enqueue(admin, second).duplicate
    assert (status(admin, first), status(admin, second)) == ("cancelled", "pending")
    message = value(
        admin,
        "select error_message from outbox.notification_delivery where job_id = %s",
        id_of(first),
    )
    assert message == f"replaced by {id_of(second)}"


def test_replace_keeps_the_one_that_is_claimed(admin: Connection, key: str) -> None:
    first = keyed(key)
    outbox.enqueue(admin, first)
    admin.execute("update outbox.entry set claimed_by = 7")
    answer = outbox.enqueue(admin, keyed(key, "replace"))
    assert (answer.duplicate, answer.job_id, answer.status) == (True, id_of(first), "processing")


def test_a_job_that_is_too_late_on_arrival_takes_no_key(connection: Connection, key: str) -> None:
    late = keyed(key, expires_at="2025-11-26T00:00:00Z")
    assert outbox.enqueue(connection, late).status == "expired"
    assert not outbox.enqueue(connection, keyed(key)).duplicate


def test_within_a_batch_the_first_is_kept_and_with_replace_the_last(
    connection: Connection, key: str
) -> None:
    first, second, third = keyed(key), keyed(key), keyed(key, "replace")
    plain = addressed(job_id=str(outbox.uuid7()))
    answers = outbox.enqueue_many(connection, [first, second, plain, third])
    assert [(a.job_id, a.duplicate, a.status) for a in answers] == [
        (id_of(first), False, "cancelled"),
        (id_of(first), True, "pending"),
        (id_of(plain), False, "pending"),
        (id_of(third), False, "pending"),
    ]
    assert [status(connection, job) for job in (first, third)] == ["cancelled", "pending"]
    again = outbox.enqueue_many(connection, [first, second, plain, third])
    assert [(a.job_id, a.duplicate) for a in again] == [
        (id_of(first), True),
        (id_of(first), True),
        (id_of(plain), True),
        (id_of(third), True),
    ]


def test_a_rolled_back_job_takes_no_key(doors: Database, key: str) -> None:
    with doors.connect() as connection:
        outbox.enqueue(connection, keyed(key))
        connection.rollback()
        assert not outbox.enqueue(connection, keyed(key)).duplicate
        connection.rollback()


@pytest.mark.parametrize("policy", ["keep", "replace"])
def test_fifty_connections_with_one_dedup_key_leave_one_job(
    doors: Database, key: str, policy: str
) -> None:
    jobs = [keyed(key, policy) for _ in range(50)]
    start = threading.Barrier(50)

    def hand_in(job: dict[str, object]) -> outbox.EnqueueResult:
        with doors.connect() as connection:
            connection.execute("select 1")
            start.wait(60)
            return outbox.enqueue(connection, job)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(hand_in, jobs))
    with doors.admin_connect() as connection:
        statuses = [status(connection, job) for job in jobs if jobs_kept(connection, job)]
        assert statuses.count("pending") == 1
        if policy == "keep":
            assert statuses == ["pending"]
            assert len({answer.job_id for answer in answers}) == 1
            assert sum(not answer.duplicate for answer in answers) == 1
        else:
            assert statuses.count("cancelled") == 49


def test_batches_with_keys_in_opposite_order_do_not_deadlock(doors: Database) -> None:
    rounds, size = 10, 40
    names = [[str(uuid.uuid4()) for _ in range(size)] for _ in range(rounds)]
    start = threading.Barrier(4)

    def hand_in(turn: int) -> int:
        fresh = 0
        with doors.connect() as connection:
            for keys in names:
                start.wait(60)
                jobs = [keyed(name, ordering_key=name) for name in keys]
                results = outbox.enqueue_many(connection, jobs if turn % 2 else jobs[::-1])
                connection.commit()
                fresh += sum(not result.duplicate for result in results)
        return fresh

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(hand_in, range(4))) == rounds * size


def test_at_repeatable_read_a_rivals_key_is_a_serialization_failure(
    doors: Database, key: str
) -> None:
    with doors.connect() as rival, doors.connect() as late:
        late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        late.execute("select 1")
        outbox.enqueue(rival, keyed(key))
        rival.commit()
        with pytest.raises(psycopg.errors.SerializationFailure):
            outbox.enqueue(late, keyed(key))
        late.rollback()


def test_keys_whose_window_is_over_are_pruned_by_batches(admin: Connection) -> None:
    outbox.enqueue_many(admin, [keyed(str(uuid.uuid4())) for _ in range(5)])
    admin.execute("update outbox.dedup set until = clock_timestamp()")
    assert value(admin, "select outbox.prune_dedup(3)") == 3
    admin.execute("select outbox.prune_dedup(1000000)")
    assert value(admin, "select count(*) from outbox.dedup") == 0


def test_a_resend_is_no_duplicate(admin: Connection, key: str) -> None:
    job = keyed(key)
    outbox.enqueue(admin, job)
    (copied, *_) = admin.execute(
        query("job_resend_source"),
        {"id": value(admin, "select id from outbox.job where job_id = %s", id_of(job))},
    ).fetchone() or ("",)
    assert "dedup" not in copied

"""Days are made ahead and retired behind, never with anything live inside."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from uuid import uuid4

import psycopg
import pytest

from outbox.store import engine, retention
from outbox.store.engine import Connection
from outbox_dispatcher.keeper import keep_once
from outbox_dispatcher.links import open_link
from tests.engine.desk import Desk, claim, register, sent
from tests.store.days import (
    days_ago,
    kept,
    live_through,
    make_day,
    partitions,
    put_in_line,
    today,
)

RETENTION_DAYS = 90
DEAD_LETTER_DAYS = 180


@pytest.fixture
async def keeper(desk: Desk) -> AsyncIterator[Connection]:
    async with open_link(desk.database.url, "keep") as connection:
        yield connection


async def at_once(_: float) -> None:
    """Rest not at all."""


async def round_of(keeper: Connection, days: int = 0) -> None:
    await keep_once(keeper, now=days_ago(days), rest=at_once)


async def test_a_day_over_age_goes_with_all_that_belongs_to_its_jobs(
    desk: Desk, keeper: Connection
) -> None:
    for days in (RETENTION_DAYS + 1, RETENTION_DAYS):
        make_day(desk.admin, days_ago(days))
        live_through(desk.admin, days_ago(days), jobs=10)
    await round_of(keeper)
    assert kept(desk.admin) == {
        "job": 10,
        "job_key": 11,
        "delivery": 10,
        "receipt": 1,
        "inbox_message": 1,
        "dead_letter": 4,
        "operator_action": 2,
        "event": 1,
        "sink_message": 1,
        "stat_quarter": 0,
        "stat_hour": 1,
    }
    first = days_ago(RETENTION_DAYS).date().isoformat()
    assert partitions(desk.admin, "job")[0] == partitions(desk.admin, "delivery")[0] == first
    tables = "select count(*) from pg_class where relname ~ '^(job|delivery)_2.{7}$'"
    assert desk.value(tables) == len(partitions(desk.admin, "job")) * 2


async def test_a_day_with_a_live_job_stays_until_it_has_ended(
    desk: Desk, keeper: Connection
) -> None:
    at = days_ago(RETENTION_DAYS + 5)
    make_day(desk.admin, at)
    ids = live_through(desk.admin, at, jobs=5)
    put_in_line(desk.admin, ids[4])
    await round_of(keeper)
    assert kept(desk.admin)["job"] == 5
    assert desk.rows("select days, live from outbox.retention_lag()") == [(5, True)]
    desk.admin.execute("delete from outbox.entry")
    await round_of(keeper)
    assert kept(desk.admin)["job"] == 0
    assert desk.rows("select days, live from outbox.retention_lag()") == [(None, None)]


async def test_a_retry_that_comes_while_its_day_is_retired_keeps_it(
    desk: Desk, keeper: Connection
) -> None:
    at = days_ago(RETENTION_DAYS + 5)
    make_day(desk.admin, at)
    ids = live_through(desk.admin, at, jobs=5)
    desk.admin.execute("alter function outbox.retire_day set lock_timeout = '30s'")
    with desk.database.admin_connect() as rival:
        put_in_line(rival, ids[4])
        retiring = asyncio.create_task(retention.retire_day(keeper))
        await desk.until(lambda: desk.value("select count(*) from pg_locks where not granted") > 0)
        rival.commit()
    assert await retiring is None
    assert kept(desk.admin)["job"] == 5


async def test_retiring_gives_way_to_a_transaction_that_goes_on(
    desk: Desk, keeper: Connection
) -> None:
    at = days_ago(RETENTION_DAYS + 5)
    make_day(desk.admin, at)
    live_through(desk.admin, at, jobs=5)
    with desk.database.admin_connect() as reader:
        reader.execute("select count(*) from outbox.job")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            await retention.retire_day(keeper)
        desk.enqueue()
    assert await retention.retire_day(keeper) == at.date()


async def test_two_dispatchers_never_retire_the_same_day(desk: Desk, keeper: Connection) -> None:
    at = days_ago(RETENTION_DAYS + 5)
    make_day(desk.admin, at)
    live_through(desk.admin, at, jobs=20)
    async with open_link(desk.database.url, "keep") as other:
        async with keeper.transaction():
            assert await retention.retire_day(keeper) == at.date()
            assert await retention.retire_day(other) is None
        async with keeper.transaction():
            assert await retention.prune_retired(keeper, rows=5) == 5
            assert await retention.prune_retired(other) is None
        assert await retention.prune_retired(other, rows=100) == 15
        assert await retention.prune_retired(keeper) == 0
    assert kept(desk.admin)["job_key"] == 0


async def test_a_round_that_was_killed_goes_on_where_it_stopped(
    desk: Desk, keeper: Connection
) -> None:
    at = days_ago(RETENTION_DAYS + 5)
    make_day(desk.admin, at)
    live_through(desk.admin, at, jobs=20)
    await retention.retire_day(keeper)
    await retention.prune_retired(keeper, rows=5)
    desk.admin.execute("select pg_terminate_backend(%s)", (keeper.info.backend_pid,))
    async with open_link(desk.database.url, "keep") as other:
        await round_of(other)
    assert kept(desk.admin)["job_key"] == kept(desk.admin)["delivery"] == 0
    assert desk.value("select count(*) from outbox.retiring") == 0


async def test_somebody_s_interrupted_detach_is_finished(
    desk: Desk, keeper: Connection, postgres_version: str
) -> None:
    at = days_ago(RETENTION_DAYS + 5)
    make_day(desk.admin, at)
    live_through(desk.admin, at, jobs=20)
    child = f"outbox.job_{at:%Y%m%d}"
    with desk.database.admin_connect() as reader:
        reader.execute("select count(*) from outbox.job")
        with desk.database.admin_connect(autocommit=True) as hasty:
            hasty.execute("set statement_timeout = '200ms'")
            with pytest.raises(psycopg.errors.QueryCanceled):
                hasty.execute(f"alter table outbox.job detach partition {child} concurrently")
    assert desk.value("select bool_or(pending) from outbox.days_of('outbox.job')")
    await round_of(keeper)
    assert kept(desk.admin)["job_key"] == 0
    assert desk.value("select to_regclass(%s)", child) is None


async def test_a_duplicate_is_told_the_truth_while_its_day_is_retired(
    desk: Desk, keeper: Connection
) -> None:
    job_id = uuid4()
    desk.enqueue(job_id=job_id)
    desk.admin.execute("delete from outbox.entry")
    desk.admin.execute(
        "insert into outbox.delivery"
        " (id, finished_at, lease_no, series, attempt, terminal, status, tenant_id)"
        " select id, clock_timestamp(), 1, 1, 1, true, 'SENT', 'default' from outbox.job"
    )
    later = today() + timedelta(days=RETENTION_DAYS + 2)
    assert await retention.retire_day(keeper, now=later) is not None  # yesterday
    assert await retention.retire_day(keeper, now=later) is not None  # today
    again = "select status, result from outbox.enqueue_many_v1(array[%s::jsonb])"
    job = f'{{"job_id": "{job_id}", "queue": "work", "payload": {{}}}}'
    assert desk.rows(again, job) == [("sent", "duplicate")]
    while await retention.prune_retired(keeper) is not None:
        pass
    assert desk.value("select count(*) from outbox.job_key") == 0


async def test_an_outcome_that_comes_when_its_job_is_no_longer_kept_stops_no_neighbour(
    desk: Desk, keeper: Connection
) -> None:
    for _ in range(2):
        desk.enqueue()
    async with open_link(desk.database.url, "record") as zombie:
        epoch = await register(zombie, 7)
        claimed = await claim(zombie, desk, epoch=epoch)
        # Meanwhile another one has ended the first, and its day was retired.
        desk.admin.execute("delete from outbox.entry where id = %s", (claimed[0].id,))
        desk.admin.execute("delete from outbox.job where id = %s", (claimed[0].id,))
        odd = await engine.record(zombie, [sent(c) for c in claimed], [], [], epoch=epoch)
        assert [(u.id, u.late) for u in odd] == [(claimed[0].id, True)]
    assert desk.rows("select id from outbox.delivery") == [(claimed[1].id,)]


async def test_partitions_stay_two_weeks_ahead_and_the_doctor_sees_when_they_do_not(
    desk: Desk, keeper: Connection
) -> None:
    assert desk.value("select outbox.partition_days_left()") == 14
    in_eight_days = today() + timedelta(days=8)
    assert desk.value("select outbox.partition_days_left(%s)", in_eight_days) == 6
    await retention.make_partitions(keeper, now=in_eight_days)
    assert desk.value("select outbox.partition_days_left(%s)", in_eight_days) == 14
    # A day that only one of the two has is none.
    last = (in_eight_days + timedelta(days=14)).strftime("%Y%m%d")
    desk.admin.execute(f"drop table outbox.delivery_{last}".encode())
    assert desk.value("select outbox.partition_days_left(%s)", in_eight_days) == 13


async def test_parents_are_analyzed_daily_and_when_they_have_grown(
    desk: Desk, keeper: Connection
) -> None:
    assert await retention.analyze_parents(keeper) == ["job", "delivery", "job_key"]
    assert await retention.analyze_parents(keeper) == []
    make_day(desk.admin, days_ago(1))
    live_through(desk.admin, days_ago(1), jobs=2000)
    for child in ("job", "delivery"):
        desk.admin.execute(f"analyze outbox.{child}_{days_ago(1):%Y%m%d}".encode())
    assert await retention.analyze_parents(keeper) == ["job", "delivery"]
    assert desk.value("select reltuples from pg_class where oid = 'outbox.job'::regclass") == 2000
    tomorrow = today() + timedelta(days=1, hours=13)
    assert len(await retention.analyze_parents(keeper, now=tomorrow)) == 3


@pytest.fixture
def traffic(desk: Desk) -> Iterator[list[BaseException]]:
    """Producers and readers that go on all the while; what went wrong for them is in the list."""
    over = threading.Event()
    wrong: list[BaseException] = []

    def produce() -> None:
        with desk.database.connect(autocommit=True) as connection:
            connection.execute("set statement_timeout = '2s'")
            while not over.wait(0.01):
                connection.execute(
                    "select from outbox.enqueue(jsonb_build_object('job_id', gen_random_uuid(),"
                    " 'queue', 'work', 'payload', '{}'::jsonb))"
                )

    def read() -> None:
        with desk.database.admin_connect(autocommit=True) as connection:
            connection.execute("set statement_timeout = '2s'")
            while not over.wait(0.01):
                connection.execute("select count(*) from outbox.notification").fetchone()

    def telling(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=telling, args=(work,)) for work in (produce, read)]
    for thread in threads:
        thread.start()
    yield wrong
    over.set()
    for thread in threads:
        thread.join()


@pytest.mark.timeout(300)
async def test_a_year_goes_by_and_the_store_stays_as_large_as_its_retention(
    desk: Desk, keeper: Connection, traffic: list[BaseException]
) -> None:
    live: set[int] = set()
    for age in range(365, 0, -1):
        at = days_ago(age)
        desk.admin.execute("select outbox.make_partitions(14, %s)", (at,))
        ids = live_through(desk.admin, at, jobs=10)
        if age % 60 == 0:  # a job that fails, is retried in a paused lane, and waits for 100 days
            put_in_line(desk.admin, ids[4])
            live.add(ids[4])
        for job in {
            j
            for j in live
            if desk.value("select %s - outbox.id_floor(%s) < 0", j, at - timedelta(days=100))
        }:
            desk.admin.execute("delete from outbox.entry where id = %s", (job,))
            live.discard(job)
        # Before 18, ANALYZE takes each partition along: a daily one would be most of this test.
        desk.admin.execute(
            "update outbox.chore set done_at = %s", (at - timedelta(days=age % 30 == 0),)
        )
        await keep_once(keeper, now=at, rest=at_once)
        days = partitions(desk.admin, "job")
        oldest_kept = (at - timedelta(days=RETENTION_DAYS)).date().isoformat()
        stays = {desk.value("select outbox.id_time(%s)::date::text", job) for job in live}
        assert {day for day in days if day < oldest_kept} <= stays
        assert (at + timedelta(days=14)).date().isoformat() in days
    assert traffic == []
    assert (
        kept(desk.admin)["dead_letter"] == (DEAD_LETTER_DAYS + 1) * 2
    )  # the last round is a day old
    old = today().date().isoformat()
    past = "select count(*) from outbox.{} where id < outbox.id_floor(%s::date)"
    lost = (
        "select count(*) from outbox.entry as e"
        " where not exists (select from outbox.job as j where j.id = e.id)"
    )
    assert desk.value(lost) == 0
    assert desk.value(past.format("job"), old) <= 10 * (RETENTION_DAYS + 3)
    assert desk.value(past.format("delivery"), old) == desk.value(past.format("job"), old)
    assert desk.value(past.format("job_key"), old) == 11 * desk.value(past.format("job"), old) / 10
    assert kept(desk.admin)["stat_quarter"] <= 3
    assert kept(desk.admin)["stat_hour"] <= RETENTION_DAYS + 1
    assert kept(desk.admin)["event"] <= RETENTION_DAYS + 1

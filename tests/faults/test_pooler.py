"""Behind a real pgbouncer in transaction mode, with few connections that everybody shares."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from time import monotonic
from uuid import uuid4

import psycopg
import pytest

from outbox.message import Message
from outbox.outcome import Delivered, Outcome
from outbox.store.pooler import is_pooled
from outbox_dispatcher.service import Dispatcher
from outbox_dispatcher.settings import DispatcherSettings
from tests.api.conftest import job, running_api
from tests.engine.desk import QUEUE, Desk, Scripted
from tests.faults.pgbouncer import pooled
from tests.faults.workers import Workers

LEASE_S = 12.0


@pytest.fixture
async def pooler(desk: Desk, tmp_path: Path) -> AsyncIterator[str]:
    """The desk's database, through pgbouncer."""
    async with pooled(desk.database.url, tmp_path) as url:
        yield url


async def test_a_pooler_is_told_from_postgres_itself(desk: Desk, pooler: str) -> None:
    for url, expected in ((desk.database.url, False), (pooler, True)):
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            assert await is_pooled(connection) is expected


@pytest.mark.parametrize("direct", [True, False])
async def test_dispatchers_deliver_once_behind_a_pooler_and_leave_nothing_on_its_connections(
    desk: Desk, pooler: str, direct: bool
) -> None:
    jobs = [desk.enqueue() for _ in range(300)]

    async def deliver(message: Message) -> Outcome:
        await asyncio.sleep(0.001)
        return Delivered()

    handler = Scripted(deliver)
    settings = DispatcherSettings(
        database_url=pooler, direct_database_url=desk.database.url if direct else None
    )
    running = [Dispatcher(settings, channels={}, queues={QUEUE: handler}) for _ in range(2)]
    tasks = [asyncio.create_task(dispatcher.run()) for dispatcher in running]
    await desk.until(lambda: desk.value("select count(*) from outbox.entry") == 0)
    # Upkeep's own, each for a transaction, come and go.
    await desk.until(
        lambda: (
            desk.value(
                "select count(*) from pg_locks where locktype = 'advisory' and database ="
                " (select oid from pg_database where datname = current_database())"
            )
            == (2 if direct else 0)
        )
    )
    for dispatcher in running:
        dispatcher.stop()
    await asyncio.gather(*tasks)
    assert Counter(message.key for message in handler.seen) == dict.fromkeys(jobs, 1)
    async with await psycopg.AsyncConnection.connect(pooler) as connection:
        cursor = await connection.execute(
            "select count(*) from pg_settings where source = 'session' and name in ('role',"
            " 'enable_seqscan', 'jit', 'plan_cache_mode', 'synchronous_commit')",
            prepare=False,
        )
        assert await cursor.fetchone() == (0,)


@pytest.mark.parametrize("direct", [True, False])
async def test_jobs_of_a_killed_dispatcher_start_again_in_seconds_or_within_the_lease(
    desk: Desk, pooler: str, tmp_path: Path, direct: bool
) -> None:
    workers = Workers(pooler, tmp_path)
    past: list[object] = ["--lease-s", LEASE_S]
    if direct:
        past += ["--direct-url", desk.database.url]
    try:
        victim = workers.start("--block", tmp_path / "never", *past)
        heir = workers.start(*past)
        await desk.until(lambda: desk.value("select count(*) from outbox.dispatcher") == 2)
        heir.send_signal(signal.SIGSTOP)  # so that the other one gets the job
        job_id = desk.enqueue()
        await desk.until(lambda: len(workers.delivered()) == 1)
        heir.send_signal(signal.SIGCONT)
        victim.kill()
        killed_at = monotonic()
        await desk.until(lambda: len(workers.delivered()) == 2)
        # Behind the pooler the last heartbeat must be a lease old, and one looks every second.
        assert monotonic() - killed_at < (5.0 if direct else LEASE_S + 1.5)
        await desk.until_status(job_id, "sent")
        assert desk.deliveries(job_id)[0] == ("RETRYING", 1, "lease.lost", False)
    finally:
        workers.stop()


async def test_the_api_works_behind_a_pooler_and_leaves_its_commits_durable(
    desk: Desk, pooler: str
) -> None:
    async with running_api(pooler, auth=False) as client:
        for _ in range(12):
            answers = await asyncio.gather(
                *(client.post("/api/v1/jobs", json=job(job_id=str(uuid4()))) for _ in range(5)),
                client.get("/api/v1/jobs"),
            )
            assert [answer.status_code for answer in answers if not answer.is_success] == []
    assert desk.value("select count(*) from outbox.job") == 60
    async with await psycopg.AsyncConnection.connect(pooler) as connection:
        cursor = await connection.execute(
            "select count(*) from pg_settings where source = 'session' and name in ('role',"
            " 'enable_seqscan', 'jit', 'plan_cache_mode', 'synchronous_commit')",
            prepare=False,
        )
        assert await cursor.fetchone() == (0,)

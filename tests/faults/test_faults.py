"""The promise under faults: nothing lost, nothing stale, duplicates only where a fault was."""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from outbox.embedded import EmbeddedServer
from outbox.message import Message
from outbox.outcome import Delivered, Outcome
from outbox.store import engine
from outbox_dispatcher.life import SELF_FENCE_S
from outbox_dispatcher.service import Dispatcher
from outbox_dispatcher.settings import DispatcherSettings
from tests.engine.desk import QUEUE, Desk, Scripted, enqueue_on, in_s
from tests.faults.proxy import Proxy, proxied
from tests.faults.workers import ROOT, Workers


def check_accounted_for(rows: Callable[[str], list[tuple[Any, ...]]], jobs: set[UUID]) -> None:
    """Check what must hold after any fault: it reads the history and knows nothing of the code."""
    kept = {row[0] for row in rows("select job_id from outbox.notification")}
    assert kept == jobs
    ended = Counter(
        row[0]
        for row in rows(
            "select job_id from outbox.notification_delivery"
            " where not late and status in ('SENT', 'FAILED', 'EXPIRED', 'CANCELLED')"
        )
    )
    assert set(ended) == jobs, "each committed job ends"
    assert set(ended.values()) == {1}, "and ends once"
    assert rows("select 1 from outbox.entry") == []


async def test_a_dispatcher_killed_between_deliver_and_record_is_noticed_in_seconds(
    desk: Desk, workers: Workers, tmp_path: Path
) -> None:
    job_id = desk.enqueue()
    victim = workers.start("--block", tmp_path / "never")
    await desk.until(lambda: len(workers.delivered()) == 1)
    workers.start()
    await desk.until(lambda: desk.value("select count(*) from outbox.dispatcher") == 2)
    victim.kill()
    killed_at = monotonic()
    await desk.until(lambda: len(workers.delivered()) == 2)
    assert monotonic() - killed_at < 5.0
    await desk.until_status(job_id, "sent")
    assert desk.deliveries(job_id) == [
        ("RETRYING", 1, "lease.lost", False),
        ("SENT", 1, None, False),
    ]
    assert {key for key, _ in workers.delivered()} == {job_id}, "with the same idempotency key"
    check_accounted_for(desk.rows, {job_id})


async def test_a_frozen_dispatcher_that_wakes_up_changes_nothing_and_sends_nothing_more(
    desk: Desk, workers: Workers, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    jobs = {desk.enqueue() for _ in range(4)}
    frozen = workers.start("--block", gate, "--lease-s", 30, "--concurrency", 2)
    await desk.until(lambda: len(workers.delivered()) == 2)
    frozen.send_signal(signal.SIGSTOP)
    frozen_at = monotonic()
    desk.admin.execute(
        "update outbox.dispatcher set heartbeat_at = heartbeat_at - interval '40 s'"
    )
    healthy = workers.start()
    await desk.until(lambda: desk.value("select count(*) from outbox.entry") == 0)
    # The heartbeat was made old by hand: before 2 s are really over it may rightly start more.
    await desk.until(lambda: monotonic() > frozen_at + SELF_FENCE_S)
    gate.touch()
    frozen.send_signal(signal.SIGCONT)
    await desk.until(lambda: desk.value("select count(*) from outbox.delivery where late") == 2)
    check_accounted_for(desk.rows, jobs)
    by_process = Counter(pid for _, pid in workers.delivered())
    assert by_process == {frozen.pid: 2, healthy.pid: 4}


async def test_a_poison_job_ends_after_three_crashes_and_its_neighbours_lose_nothing(
    desk: Desk, workers: Workers
) -> None:
    poison = desk.enqueue(payload={"poison": True})
    neighbours = {desk.enqueue(payload={"slow_s": 0.05}) for _ in range(12)}
    async with asyncio.timeout(60):
        while desk.value("select count(*) from outbox.entry") > 0:
            running = workers.start()
            while running.poll() is None and desk.value("select count(*) from outbox.entry") > 0:
                await asyncio.sleep(0.05)
    assert desk.status(poison) == "failed"
    assert {desk.status(job_id) for job_id in neighbours} == {"sent"}
    assert Counter(key for key, _ in workers.delivered())[poison] == 3
    check_accounted_for(desk.rows, neighbours | {poison})
    assert desk.value("select max(attempt) from outbox.delivery") == 1


ORDERED_KEYS, ORDERED_JOBS, ORDERED_KILLS = 8, 160, 4


async def test_each_key_stays_in_order_while_dispatchers_are_killed(
    desk: Desk, workers: Workers
) -> None:
    draw = random.Random(7)
    place: dict[UUID, tuple[str, int]] = {}
    for n in range(ORDERED_JOBS):
        key = str(draw.randrange(ORDERED_KEYS))
        payload = {"fails": draw.choice([0, 0, 0, 1, 9]), "slow_s": 0.02}
        job_id = desk.enqueue(payload=payload, ordering_key=key, max_attempts=2)
        place[job_id] = key, n
    crew = [workers.start() for _ in range(2)]
    for n in range(ORDERED_KILLS):
        seen = len(workers.delivered())
        await desk.until(lambda seen=seen: len(workers.delivered()) > seen + 10)  # type: ignore[misc]
        crew[n % 2].kill()
        crew[n % 2] = workers.start()
    await desk.until(lambda: desk.value("select count(*) from outbox.entry") == 0)
    check_accounted_for(desk.rows, set(place))
    began: dict[str, list[int]] = {}
    for job_id, _ in workers.delivered():
        key, n = place[job_id]
        began.setdefault(key, []).append(n)
    assert all(places == sorted(places) for places in began.values())
    crashes = desk.value("select count(*) from outbox.delivery where error_code = 'lease.lost'")
    attempts = Counter(job_id for job_id, _ in workers.delivered())
    tries = desk.value("select count(*) from outbox.delivery where started_at is not null")
    assert sum(attempts.values()) <= tries
    assert 0 < crashes <= ORDERED_KILLS * ORDERED_KEYS
    assert desk.rows("select * from outbox.ordering") == []


async def test_clocks_an_hour_apart_change_nothing(desk: Desk, workers: Workers) -> None:
    jobs = {desk.enqueue(send_after=in_s(2), expires_at=in_s(600)) for _ in range(20)}
    workers.start("--shift-clock", 3600)
    workers.start("--shift-clock", -3600)
    await desk.until(lambda: desk.value("select count(*) from outbox.entry") == 0)
    check_accounted_for(desk.rows, jobs)
    assert desk.rows(
        "select d.status, count(*), bool_and(d.started_at >= j.send_after)"
        " from outbox.delivery as d join outbox.job as j using (id) group by 1"
    ) == [("SENT", 20, True)]


def test_the_dispatcher_decides_nothing_by_its_own_wall_clock() -> None:
    sources = [*(ROOT / "dispatcher").rglob("*.py"), ROOT / "outbox/store/engine.py"]
    # Spans of all processes lie on one axis, that of each machine's own time.
    for path in (path for path in sources if path.name != "tracing.py"):
        text = path.read_text()
        for call in ("datetime.now", "utcnow", "time.time", "date.today"):
            assert call not in text, f"{call} in {path.name}"


async def _run_until_empty(url: str, admin: Callable[[], int], nemesis: Any) -> Scripted:
    async def deliver(message: Message) -> Outcome:
        await asyncio.sleep(0.002)
        return Delivered()

    handler = Scripted(deliver)
    dispatcher = Dispatcher(
        DispatcherSettings(database_url=url, poll_s_max=0.2, concurrency={QUEUE: 10}),
        channels={},
        queues={QUEUE: handler},
    )
    running = asyncio.create_task(dispatcher.run())
    async with asyncio.timeout(90):
        await nemesis(handler)
        while admin() > 0:
            await asyncio.sleep(0.05)
        dispatcher.stop()
        await running
    return handler


async def test_postgres_stopped_in_immediate_mode_during_a_drain_loses_nothing(
    own_server: EmbeddedServer,
) -> None:
    def rows(statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(own_server.admin_url) as connection:
            return connection.execute(statement.encode()).fetchall()

    def waiting() -> int:
        try:
            return int(rows("select count(*) from outbox.entry")[0][0])
        except psycopg.OperationalError:
            return 1

    with psycopg.connect(own_server.admin_url) as producer:
        producer.execute("insert into outbox.handler (kind, name) values ('queue', 'work')")
        jobs = {enqueue_on(producer) for _ in range(1500)}

    async def nemesis(handler: Scripted) -> None:
        for seen in (100, 500, 900):
            while len(handler.seen) < seen:
                await asyncio.sleep(0.005)
            await asyncio.to_thread(own_server.stop_immediate)
            await asyncio.to_thread(own_server.start)

    handler = await _run_until_empty(own_server.url, waiting, nemesis)
    check_accounted_for(rows, jobs)
    twice = sum(1 for count in Counter(m.key for m in handler.seen).values() if count > 1)
    assert twice <= 3 * 10, "at most what was in flight at each fault"


async def test_cut_connections_and_lost_replies_lose_nothing_and_store_nothing_twice(
    desk: Desk,
) -> None:
    jobs = {desk.enqueue() for _ in range(1500)}
    draw = random.Random(7)
    async with proxied(desk.database.url) as proxy:

        async def nemesis(handler: Scripted) -> None:
            for seen in range(100, 1300, 150):
                while len(handler.seen) < seen:
                    await asyncio.sleep(0.002)
                if draw.random() < 0.7:
                    proxy.mute()
                    await asyncio.sleep(draw.uniform(0.001, 0.05))
                proxy.cut()

        handler = await _run_until_empty(
            proxy.url, lambda: int(desk.value("select count(*) from outbox.entry")), nemesis
        )
        assert proxy.swallowed_bytes > 0
    check_accounted_for(desk.rows, jobs)
    sent = desk.value("select sum(sent) from outbox.stat_second")
    assert sent == 1500, "the counts are those of the history"
    twice = sum(1 for count in Counter(m.key for m in handler.seen).values() if count > 1)
    assert twice <= 9 * 10


async def test_what_runs_survives_a_session_that_is_lost_before_it_could_adopt_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = desk.enqueue()
    gate = asyncio.Event()
    refusals = 0
    register = engine.register

    async def refusing(*given: Any, **named: Any) -> None:
        nonlocal refusals
        refusals += 1
        if refusals in (2, 3):
            raise psycopg.OperationalError("gone again")
        await register(*given, **named)

    async def deliver(message: Message) -> Outcome:
        await gate.wait()
        return Delivered()

    monkeypatch.setattr(engine, "register", refusing)
    handler = Scripted(deliver)
    async with proxied(desk.database.url) as proxy:
        dispatcher = Dispatcher(
            DispatcherSettings(database_url=proxy.url, poll_s_max=0.2),
            channels={},
            queues={QUEUE: handler},
        )
        running = asyncio.create_task(dispatcher.run())
        await handler.started.wait()
        proxy.cut()
        await desk.until(lambda: refusals == 4 and dispatcher.life.may_start())
        gate.set()
        await desk.until_status(job_id, "sent")
        dispatcher.stop()
        await running
    assert desk.deliveries(job_id) == [("SENT", 1, None, False)]
    assert desk.value("select count(*) from outbox.dispatcher") == 0


async def test_an_attempt_that_ends_while_its_process_reconnects_is_recorded(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = desk.enqueue()
    gate = asyncio.Event()
    register = engine.register

    async def deliver(message: Message) -> Outcome:
        await gate.wait()
        return Delivered()

    handler = Scripted(deliver)

    async def registering(*given: Any, **named: Any) -> None:
        if handler.seen:
            gate.set()
            while handler.running:
                await asyncio.sleep(0)
        await register(*given, **named)

    monkeypatch.setattr(engine, "register", registering)
    async with proxied(desk.database.url) as proxy:
        dispatcher = Dispatcher(
            DispatcherSettings(database_url=proxy.url, poll_s_max=0.2),
            channels={},
            queues={QUEUE: handler},
        )
        running = asyncio.create_task(dispatcher.run())
        await handler.started.wait()
        proxy.cut()
        await desk.until_status(job_id, "sent")
        dispatcher.stop()
        await running
    assert handler.times_seen(job_id) == 1
    assert desk.deliveries(job_id) == [("SENT", 1, None, False)]


async def test_a_producer_whose_commit_s_reply_is_lost_may_hand_in_again(desk: Desk) -> None:
    async with proxied(desk.database.admin_url) as proxy:
        for lose_request in (True, False):
            job_id = uuid4()
            await _enqueue_through_a_fault(proxy, job_id, lose_request=lose_request)
            assert desk.value("select count(*) from outbox.job where job_id = %s", job_id) == 1


async def _enqueue_through_a_fault(proxy: Proxy, job_id: UUID, *, lose_request: bool) -> None:
    job = json.dumps({"job_id": str(job_id), "queue": QUEUE, "payload": {}})
    connection = await psycopg.AsyncConnection.connect(proxy.url)
    cursor = await connection.execute("select duplicate from outbox.enqueue(%s::jsonb)", (job,))
    assert await cursor.fetchone() == (False,)
    if lose_request:
        proxy.cut()
    else:
        proxy.mute()
    committing = asyncio.create_task(connection.commit())
    while not lose_request and proxy.swallowed_bytes == 0:
        await asyncio.sleep(0.005)
    proxy.cut()
    with pytest.raises(psycopg.OperationalError):
        await committing
    await connection.close()
    async with await psycopg.AsyncConnection.connect(proxy.url) as again:
        cursor = await again.execute("select duplicate from outbox.enqueue(%s::jsonb)", (job,))
        assert await cursor.fetchone() == (not lose_request,)


async def test_a_dispatcher_that_is_stopped_while_postgres_is_away_leaves_after_its_grace(
    own_server: EmbeddedServer,
) -> None:
    with psycopg.connect(own_server.admin_url) as producer:
        producer.execute("insert into outbox.handler (kind, name) values ('queue', 'work')")
        enqueue_on(producer)
    gate = asyncio.Event()

    async def deliver(message: Message) -> Outcome:
        await gate.wait()
        return Delivered()

    handler = Scripted(deliver)
    settings = DispatcherSettings(database_url=own_server.url, drain_s=0.5)
    dispatcher = Dispatcher(settings, channels={}, queues={QUEUE: handler})
    running = asyncio.create_task(dispatcher.run())
    await handler.started.wait()
    await asyncio.to_thread(own_server.stop_immediate)
    gate.set()
    dispatcher.stop()
    await asyncio.wait_for(running, 10)
    await asyncio.to_thread(own_server.start)
    with psycopg.connect(own_server.admin_url) as connection:
        row = connection.execute("select claimed_by is not null from outbox.entry").fetchone()
    assert row == (True,), "it is still claimed, for others to rescue"

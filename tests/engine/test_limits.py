"""Limits of lanes over the whole fleet, with several dispatchers on one store.

What is counted is what the store has written down: how many entries are claimed, and when
attempts started by the database's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from outbox.message import Epoch, Message
from outbox.outcome import Delivered, Outcome, Retryable
from outbox.store import limits
from outbox.store.limits import Destination, Health, Leased, Want
from tests.engine.desk import QUEUE, Desk, Scripted, connect, dispatching, register

ROOT = Path(__file__).parents[2]

BUSIEST = """
    select coalesce(max(running), 0)::int
    from (select sum(step) over (order by at, step) as running
          from (select started_at as at, 1 as step from outbox.delivery
                where started_at is not null
                union all
                select finished_at, -1 from outbox.delivery where started_at is not null) as steps
         ) as counted"""


class Watch:
    """Looks at the store all the while: the most entries that were claimed at once."""

    def __init__(self) -> None:
        self.claimed_max = 0
        self.looks = 0


@contextlib.asynccontextmanager
async def watching(desk: Desk) -> AsyncIterator[Watch]:
    watch = Watch()

    async def look() -> None:
        async with await psycopg.AsyncConnection.connect(
            desk.database.admin_url, autocommit=True
        ) as connection:
            while True:
                cursor = await connection.execute(
                    "select count(*) from outbox.entry where claimed_by is not null"
                )
                (count,) = await cursor.fetchone() or (0,)
                watch.claimed_max = max(watch.claimed_max, count)
                watch.looks += 1
                await asyncio.sleep(0.005)

    task = asyncio.create_task(look())
    try:
        yield watch
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def slow(seconds: float = 0.02) -> Scripted:
    async def deliver(message: Message) -> Outcome:
        await asyncio.sleep(random.uniform(0, seconds))
        return Delivered()

    return Scripted(deliver)


def fill(desk: Desk, jobs: int, *, tenant: str = "default") -> None:
    desk.admin.execute(
        "select count(*) from outbox.enqueue_many_v1(array("
        " select jsonb_build_object('queue', %s::text, 'payload', jsonb_build_object('n', n))"
        " from generate_series(1, %s) as n), %s)",
        (QUEUE, jobs, tenant),
    )


def is_empty(desk: Desk) -> bool:
    return desk.rows("select from outbox.entry limit 1") == []


# -- leases, as the store gives them ----------------------------------------------------------


async def lease(desk: Desk, epoch: int, **want: float) -> Leased:
    async with await connect(desk.database) as connection:
        wants = [Want(lane_id=desk.lane(), **want)]  # type: ignore[arg-type]
        (got,) = await limits.lease(connection, wants, epoch=epoch)  # type: ignore[arg-type]
        return got


async def alive(desk: Desk, stack: contextlib.AsyncExitStack, *epochs: int) -> None:
    for epoch in epochs:
        connection = await stack.enter_async_context(await connect(desk.database))
        await register(connection, epoch)


async def test_places_are_shared_by_demand_and_never_more_than_the_limit(desk: Desk) -> None:
    desk.limit(concurrency_max=10)
    draw = random.Random(7)
    in_use = dict.fromkeys(range(1, 5), 0)
    places = dict.fromkeys(in_use, 0)
    async with contextlib.AsyncExitStack() as stack:
        await alive(desk, stack, *in_use)
        for _ in range(200):
            epoch = draw.choice(list(in_use))
            in_use[epoch] = draw.randint(0, places[epoch])
            got = await lease(desk, epoch, in_use=in_use[epoch], wanted=draw.randint(0, 12))
            assert got.places is not None
            assert got.places >= in_use[epoch]
            places[epoch] = got.places
            assert sum(places.values()) <= 10
        for _ in range(2):
            for epoch in in_use:
                places[epoch] = (await lease(desk, epoch, wanted=10)).places or 0
        assert sum(places.values()) == 10
        assert min(places.values()) >= 2
        for epoch in (2, 3, 4):
            await lease(desk, epoch)
        assert (await lease(desk, 1, wanted=50)).places == 10


async def test_two_that_ask_at_once_never_get_the_same_place(desk: Desk) -> None:
    desk.limit(concurrency_max=3)
    async with contextlib.AsyncExitStack() as stack:
        await alive(desk, stack, *range(1, 9))
        got = await asyncio.gather(*(lease(desk, epoch, wanted=3) for epoch in range(1, 9)))
    assert sum(answer.places or 0 for answer in got) == 3


async def test_the_places_of_the_dead_are_kept_until_nothing_of_theirs_is_claimed(
    desk: Desk,
) -> None:
    desk.limit(concurrency_max=4)
    async with contextlib.AsyncExitStack() as stack:
        await alive(desk, stack, 1, 2)
        assert (await lease(desk, 1, wanted=4)).places == 4
        desk.admin.execute("update outbox.dispatcher set fenced = true where epoch = 1")
        assert (await lease(desk, 2, wanted=4)).places == 0
        desk.admin.execute("update outbox.dispatcher set rescued_at = now() where epoch = 1")
        assert (await lease(desk, 2, wanted=4)).places == 4


async def test_tokens_fill_up_by_the_database_s_clock_to_the_burst_and_no_further(
    desk: Desk,
) -> None:
    desk.limit(rate_per_s=10, burst=5)
    async with contextlib.AsyncExitStack() as stack:
        await alive(desk, stack, 1)
        first = await lease(desk, 1, wanted=100)
        assert (first.places, first.tokens) == (None, 5)
        assert 0.1 < first.wait_s <= 0.25
        desk.admin.execute(
            "update outbox.bucket set tokens = 0, filled_at = filled_at - '0.3 s'::interval"
        )
        assert (await lease(desk, 1, wanted=100)).tokens in (3, 4, 5)
        desk.admin.execute("update outbox.bucket set filled_at = filled_at - '1 h'::interval")
        assert (await lease(desk, 1, wanted=2)).tokens == 2
        assert (await lease(desk, 1, wanted=1, back=2)).tokens == 1
        left = desk.value("select tokens from outbox.bucket")
        assert 4 <= left < 4.9


async def test_a_destination_s_rate_is_shared_by_tokens_and_a_pause_gives_none(desk: Desk) -> None:
    desk.admin.execute("select outbox.set_destination('host:a.example', 5, 3, false, 'test')")
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(await connect(desk.database))
        await register(connection, 1)
        want = Want(destination="host:a.example", wanted=10)
        (got,) = await limits.lease(connection, [want], epoch=Epoch(1))
        assert (got.places, got.tokens) == (None, 3)
        await limits.pause_destination(connection, "host:a.example", 60.0)
        (got,) = await limits.lease(connection, [want], epoch=Epoch(1))
        assert got.tokens == 0
        assert 50 < got.wait_s <= 60
        (known,) = await limits.load_destinations(connection)
        assert (known.name, known.is_rated) == ("host:a.example", True)
        # A pause of one that has no rate is forgotten when it is over and another comes.
        await limits.pause_destination(connection, "host:b.example", -1.0)
        await limits.pause_destination(connection, "host:c.example", 60.0)
        names = {row[0] for row in desk.rows("select name from outbox.destination")}
        assert names == {"host:a.example", "host:c.example"}


async def test_a_half_open_breaker_gives_one_token_to_the_whole_fleet_until_it_is_told(
    desk: Desk,
) -> None:
    name = "host:a.example"
    want = Want(destination=name, wanted=10)
    async with contextlib.AsyncExitStack() as stack:
        connection = await stack.enter_async_context(await connect(desk.database))
        epochs = [await register(connection, epoch) for epoch in (1, 2)]

        async def ask(n: int, wanted: Want = want) -> Leased:
            (got,) = await limits.lease(connection, [wanted], epoch=epochs[n])
            return got

        bad = [Health(name, 10, 10)]
        await limits.report_destinations(connection, [Health(name, 11, 8)], epoch=epochs[1])
        assert await limits.load_destinations(connection) == [Destination(name, False, 0.0, False)]
        await limits.report_destinations(connection, bad, epoch=epochs[0])
        assert (await limits.load_destinations(connection))[0].is_open is False, "18 of 39"
        await limits.report_destinations(connection, [Health(name, 10, 13)], epoch=epochs[0])
        assert (await limits.load_destinations(connection))[0].is_open
        assert 25 < (await ask(0)).wait_s <= 30
        desk.admin.execute("update outbox.destination set open_until = clock_timestamp()")
        assert [(await ask(0)).tokens, (await ask(1)).tokens, (await ask(0)).tokens] == [1, 0, 0]
        # A token that nobody needed goes back.
        await ask(0, Want(destination=name, wanted=0, back=1))
        assert (await ask(1)).tokens == 1
        await limits.settle_destination(connection, name, well=False)
        assert 55 < (await ask(0)).wait_s <= 60
        desk.admin.execute("update outbox.destination set open_until = clock_timestamp()")
        assert (await ask(0)).tokens == 1
        await limits.settle_destination(connection, name, well=True)
        assert await limits.load_destinations(connection) == []


# -- the fleet ----------------------------------------------------------------------------------


async def test_a_lane_s_concurrency_holds_over_the_whole_fleet(desk: Desk) -> None:
    desk.limit(concurrency_max=4)
    fill(desk, 150)
    handler = slow()
    async with (
        watching(desk) as watch,
        dispatching(desk, {QUEUE: handler}),
        dispatching(desk, {QUEUE: handler}),
        dispatching(desk, {QUEUE: handler}),
    ):
        await desk.until(lambda: is_empty(desk))
    assert handler.running_max == watch.claimed_max == 4
    assert desk.value(BUSIEST) <= 4
    assert desk.value("select count(*) from outbox.delivery where status = 'SENT'") == 150
    assert desk.value("select count(*) from outbox.lane_share") == 0


async def test_places_go_to_where_the_work_is(desk: Desk) -> None:
    desk.limit(concurrency_max=6)
    stuck = asyncio.Event()

    async def wait(message: Message) -> Outcome:
        await stuck.wait()
        return Delivered()

    busy, free = Scripted(wait), Scripted(wait)
    fill(desk, 6)
    async with dispatching(desk, {QUEUE: busy}, concurrency={QUEUE: 6}) as first:
        await desk.until(lambda: busy.running == 6)
        async with dispatching(desk, {QUEUE: free}, concurrency={QUEUE: 6}):
            fill(desk, 6)
            first.stop()
            stuck.set()
            await desk.until(lambda: is_empty(desk))
    assert len(free.seen) == 6
    assert desk.value(BUSIEST) <= 6


async def test_concurrency_holds_when_a_dispatcher_is_killed_and_its_places_lapse(
    desk: Desk, tmp_path: Path
) -> None:
    desk.limit(concurrency_max=3)
    fill(desk, 40)
    deliveries = tmp_path / "deliveries"
    victim = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.worker", desk.database.url, str(deliveries),
         "--block", str(tmp_path / "never")],
        cwd=ROOT,
    )  # fmt: skip
    handler = slow()
    try:
        await desk.until(lambda: deliveries.exists() and deliveries.read_text().count("\n") == 3)
        async with watching(desk) as watch, dispatching(desk, {QUEUE: handler}):
            victim.kill()
            victim.wait()
            await desk.until(lambda: is_empty(desk))
    finally:
        victim.kill()
        victim.wait()
    assert watch.claimed_max == 3
    assert desk.value(BUSIEST) <= 3
    assert desk.value("select count(*) from outbox.delivery where status = 'SENT'") == 40


async def test_places_that_ran_under_a_lost_session_are_carried_over(desk: Desk) -> None:
    desk.limit(concurrency_max=2)
    fill(desk, 12)
    gate = asyncio.Event()

    async def deliver(message: Message) -> Outcome:
        await gate.wait()
        return Delivered()

    handler = Scripted(deliver)
    async with watching(desk) as watch, dispatching(desk, {QUEUE: handler}) as dispatcher:
        await desk.until(lambda: handler.running == 2)
        before = dispatcher.life.epoch
        desk.admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name like 'outbox dispatcher%' and datname = current_database()"
        )
        await desk.until(
            lambda: (
                desk.rows("select epoch, places from outbox.lane_share")
                == [(dispatcher.life.epoch, 2)]
                and dispatcher.life.epoch != before
            )
        )
        gate.set()
        await desk.until(lambda: is_empty(desk))
    assert handler.running_max == 2
    assert watch.claimed_max <= 2


async def test_a_lane_s_rate_holds_over_the_whole_fleet(desk: Desk) -> None:
    rate, burst, jobs = 50, 10, 150
    desk.limit(rate_per_s=rate, burst=burst)
    fill(desk, jobs)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(dispatching(desk, {QUEUE: Scripted()}))
        await desk.until(lambda: is_empty(desk))
    took_s = desk.value(
        "select extract(epoch from max(started_at) - min(started_at))::float8 from outbox.delivery"
    )
    fastest_s = (jobs - burst) / rate
    assert fastest_s * 0.9 <= took_s <= fastest_s * 1.5 + 2
    busiest = desk.value(
        "select max(n) from (select count(*) over (order by started_at"
        " range between current row and interval '1 s' following) as n from outbox.delivery) as w"
    )
    # A slice of tokens may be spent a little later than it was taken.
    assert busiest <= burst + rate * 1.5
    assert desk.value("select count(*) from outbox.delivery") == jobs, (
        "no attempt but the right one"
    )


async def test_over_rate_jobs_are_not_claimed_at_all(desk: Desk) -> None:
    desk.limit(rate_per_s=0.001, burst=2)
    fill(desk, 20)
    handler = Scripted()
    async with dispatching(desk, {QUEUE: handler}):
        await desk.until(lambda: len(handler.seen) == 2)
        await desk.until(lambda: desk.value("select count(*) from outbox.entry") == 18)
        # A new limit holds at once.
        desk.limit(concurrency_max=1)
        await desk.until(lambda: is_empty(desk))
    assert desk.value("select max(lease_no) from outbox.delivery") == 1


async def test_one_lane_s_limits_are_nothing_to_the_others(desk: Desk) -> None:
    desk.limit(tenant="slow", rate_per_s=0.001, burst=1, concurrency_max=1)
    fill(desk, 10, tenant="slow")
    fill(desk, 200, tenant="quick")
    async with dispatching(desk, {QUEUE: Scripted()}):
        await desk.until(lambda: desk.value("select count(*) from outbox.entry") == 9)
    assert (
        desk.value(
            "select count(*) from outbox.delivery where tenant_id = 'quick' and status = 'SENT'"
        )
        == 200
    )


async def test_a_retry_needs_a_token_as_well(desk: Desk) -> None:
    async def deliver(message: Message) -> Outcome:
        return Retryable(code="busy", reason="again", retry_after_s=0.0)

    desk.limit(rate_per_s=0.001, burst=2)
    job_id = desk.enqueue(max_attempts=5)
    handler = Scripted(deliver)
    async with dispatching(desk, {QUEUE: handler}):
        await desk.until(lambda: desk.status(job_id) == "pending" and len(handler.seen) == 2)
    assert handler.times_seen(job_id) == 2


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"weight": 0}, "weight must be from 1 to 1,000"),
        ({"concurrency_max": 0}, "to stop a lane, pause it"),
        ({"concurrency_max": -1}, "from 1 to 100,000"),
        ({"rate_per_s": 0.0}, "to stop a lane, pause it"),
        ({"rate_per_s": float("nan")}, "rate_per_s must be from 0.001"),
        ({"rate_per_s": float("inf")}, "rate_per_s must be from 0.001"),
        ({"rate_per_s": 1e7}, "rate_per_s must be from 0.001"),
        ({"burst": 5}, "burst needs a rate_per_s"),
        ({"rate_per_s": 1000.0, "burst": 3}, "at least a tenth of rate_per_s"),
    ],
)
def test_limits_that_cannot_be_are_refused_with_a_sentence(
    desk: Desk, limits: dict[str, float], said: str
) -> None:
    with pytest.raises(psycopg.Error, match=said):
        desk.limit(**limits)  # type: ignore[arg-type]

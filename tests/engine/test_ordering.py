"""Jobs of one ordering_key go one at a time and in order (invariant 9)."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest

from outbox.backoff import Backoff
from outbox.message import Epoch, Message
from outbox.outcome import Delivered, Outcome, Rejected, Retryable, Snoozed
from outbox.store import engine
from outbox.store.engine import Claimed, Connection
from tests.engine.desk import (
    QUEUE,
    Desk,
    Scripted,
    claim,
    connect,
    dispatching,
    enqueue_on,
    failed,
    in_s,
    retrying,
    sent,
)

EPOCH = Epoch(11)
AT_ONCE = Backoff(delays_s=(0.0,), jitter=0.0, attempts_max=3)


@pytest.fixture
async def link(desk: Desk) -> AsyncIterator[Connection]:
    connection = await connect(desk.database)
    yield connection
    await connection.close()


def waiting_for(desk: Desk, job_id: UUID) -> object:
    return desk.value("select waiting_for from outbox.notification where job_id = %s", job_id)


def entry_of(desk: Desk, job_id: UUID) -> int:
    found: int = desk.value("select id from outbox.job where job_id = %s", job_id)
    return found


async def claim_ids(link: Connection, desk: Desk) -> list[UUID]:
    return [c.job_id for c in await claim(link, desk, epoch=EPOCH, room=100)]


async def claim_one(link: Connection, desk: Desk) -> Claimed:
    (claimed,) = await claim(link, desk, epoch=EPOCH, room=100)
    return claimed


async def end(link: Connection, outcome: engine.Recorded) -> None:
    await engine.record(link, [outcome], [], [], epoch=EPOCH)


async def close_gaps(link: Connection, *, hold_max_s: float = 3600.0) -> int:
    return await engine.close_gaps(link, hold_max_s=hold_max_s)


def traces(desk: Desk) -> tuple[int, int]:
    """Return how many keys and gaps are still written down."""
    (row,) = desk.rows(
        "select (select count(*) from outbox.ordering), (select count(*) from outbox.ordering_gap)"
    )
    return row[0], row[1]


async def test_a_follower_is_not_claimed_before_the_head_has_ended(
    desk: Desk, link: Connection
) -> None:
    first, second, third = (desk.enqueue(ordering_key="a") for _ in range(3))
    other, free = desk.enqueue(ordering_key="b"), desk.enqueue()
    claimed = {c.job_id: c for c in await claim(link, desk, epoch=EPOCH, room=100)}
    assert set(claimed) == {first, other, free}
    assert [desk.status(j) for j in (second, third)] == ["pending", "pending"]
    assert waiting_for(desk, second) == "ordering head"
    await end(link, sent(claimed[first]))
    assert await claim_ids(link, desk) == [second]


async def test_nothing_is_left_of_a_key_once_its_jobs_have_ended(
    desk: Desk, link: Connection
) -> None:
    for _ in range(2):
        for _ in range(3):
            desk.enqueue(ordering_key="a")
        for _ in range(3):
            await end(link, sent(await claim_one(link, desk)))
        assert traces(desk) == (0, 0)


async def test_a_batch_keeps_its_own_order_and_keys_of_other_queues_and_tenants_are_others(
    desk: Desk, link: Connection
) -> None:
    desk.handle("other")
    desk.enqueue(queue="other", payload={}, ordering_key="a")
    rows = desk.rows(
        "select e.job_id from outbox.enqueue_many(array(select jsonb_build_object("
        "'queue', %s::text, 'payload', jsonb_build_object('n', n), 'ordering_key', 'a')"
        " from generate_series(1, 50) as n)) with ordinality as e order by ordinality",
        QUEUE,
    )
    for (job_id,) in rows:
        claimed = await claim_one(link, desk)
        assert claimed.job_id == job_id
        await end(link, sent(claimed))


@pytest.mark.parametrize("policy", ["pass", "hold"])
async def test_a_head_that_is_tried_again_holds_its_followers(
    desk: Desk, link: Connection, policy: str
) -> None:
    desk.admin.execute("update outbox.setting set ordering_on_failure = %s", (policy,))
    head, follower = desk.enqueue(ordering_key="a"), desk.enqueue(ordering_key="a")
    await end(link, retrying(await claim_one(link, desk), in_s(3600)))
    assert await claim_ids(link, desk) == []
    desk.admin.execute("select outbox.promote_job(%s, 'tester')", (entry_of(desk, head),))
    claimed = await claim_one(link, desk)
    assert claimed.job_id == head
    await end(link, sent(claimed))
    assert await claim_ids(link, desk) == [follower]


async def test_a_head_with_send_after_holds_its_followers_and_theirs_counts_at_the_head(
    desk: Desk, link: Connection
) -> None:
    head = desk.enqueue(ordering_key="a", send_after=in_s(3600))
    due = desk.enqueue(ordering_key="a", meta={"priority": "urgent"})
    later = desk.enqueue(ordering_key="a", send_after=in_s(7200))
    assert await claim_ids(link, desk) == []
    assert [desk.status(j) for j in (head, due, later)] == ["scheduled", "pending", "scheduled"]
    desk.admin.execute("select outbox.promote_job(%s, 'tester')", (entry_of(desk, head),))
    await end(link, sent(await claim_one(link, desk)))
    await end(link, sent(await claim_one(link, desk)))
    assert desk.status(later) == "scheduled"
    assert waiting_for(desk, later) == "send_after"
    assert await claim_ids(link, desk) == []


async def test_a_follower_cannot_be_promoted_past_the_head(desk: Desk, link: Connection) -> None:
    desk.enqueue(ordering_key="a", send_after=in_s(3600))
    for follower in (
        desk.enqueue(ordering_key="a"),
        desk.enqueue(ordering_key="a", send_after=in_s(60)),
    ):
        told = desk.value("select outbox.promote_job(%s, 'tester')", entry_of(desk, follower))
        assert told == "follows"
    assert await claim_ids(link, desk) == []


async def test_a_cancelled_head_releases_and_a_cancelled_follower_is_skipped(
    desk: Desk, link: Connection
) -> None:
    first, second, third = (desk.enqueue(ordering_key="a") for _ in range(3))
    for job_id in (second, first):
        desk.admin.execute("select outbox.cancel_jobs(%s, 'tester')", ([entry_of(desk, job_id)],))
    assert [desk.status(j) for j in (first, second)] == ["cancelled", "cancelled"]
    assert await claim_ids(link, desk) == [third]


async def test_a_whole_key_can_be_cancelled_at_once(desk: Desk) -> None:
    ids = [entry_of(desk, desk.enqueue(ordering_key="a")) for _ in range(5)]
    desk.admin.execute("select outbox.cancel_jobs(%s, 'tester')", (ids,))
    assert traces(desk) == (0, 0)
    assert desk.rows("select lane_id, cancelled from outbox.stat_second") == [(desk.lane(), 5)]


async def test_heads_and_followers_expire_where_they_stand(desk: Desk, link: Connection) -> None:
    head, expiring, kept = (desk.enqueue(ordering_key="a") for _ in range(3))
    desk.admin.execute(
        "update outbox.entry set expires_at = clock_timestamp() where id = any(%s)",
        ([entry_of(desk, expiring)],),
    )
    assert (await engine.expire(link, epoch=EPOCH)).ended == 1
    assert desk.status(expiring) == "expired"
    desk.admin.execute(
        "update outbox.entry set expires_at = clock_timestamp() where id = %s",
        (entry_of(desk, head),),
    )
    assert (await engine.expire(link, epoch=EPOCH)).ended == 1
    assert await claim_ids(link, desk) == [kept]


async def test_a_job_that_is_too_late_on_arrival_stands_in_nobody_s_way(
    desk: Desk, link: Connection
) -> None:
    assert desk.status(desk.enqueue(ordering_key="a", expires_at=in_s(-1))) == "expired"
    assert traces(desk) == (0, 0)
    job_id = desk.enqueue(ordering_key="a")
    assert await claim_ids(link, desk) == [job_id]


async def test_a_rescued_head_is_still_the_head_and_the_third_crash_releases(
    desk: Desk, link: Connection
) -> None:
    head, follower = desk.enqueue(ordering_key="a"), desk.enqueue(ordering_key="a")
    for _ in range(3):
        assert (await claim_one(link, desk)).job_id == head
        await engine.rescue(link, dead=[EPOCH], epoch=Epoch(22))
    assert desk.status(head) == "failed"
    assert await claim_ids(link, desk) == [follower]


async def test_a_late_outcome_of_a_head_releases_nobody(desk: Desk, link: Connection) -> None:
    desk.enqueue(ordering_key="a")
    desk.enqueue(ordering_key="a")
    stale = await claim_one(link, desk)
    await engine.rescue(link, dead=[EPOCH], epoch=Epoch(22))
    again = await claim_one(link, desk)
    await end(link, sent(stale))
    assert await claim_ids(link, desk) == []
    await end(link, sent(again))
    await end(link, sent(again))
    assert len(await claim_ids(link, desk)) == 1


async def test_a_dead_lettered_head_lets_its_followers_pass_and_is_replayed_at_the_end(
    desk: Desk, link: Connection
) -> None:
    head, second, third = (desk.enqueue(ordering_key="a") for _ in range(3))
    await end(link, failed(await claim_one(link, desk)))
    desk.admin.execute("select outbox.retry_job(%s, 'tester')", (entry_of(desk, head),))
    assert waiting_for(desk, head) == "ordering head"
    for expected in (second, third, head):
        claimed = await claim_one(link, desk)
        assert claimed.job_id == expected
        await end(link, sent(claimed))
    assert traces(desk) == (0, 0)


async def test_a_dead_lettered_head_is_replayed_at_once_where_nobody_waits(
    desk: Desk, link: Connection
) -> None:
    head = desk.enqueue(ordering_key="a")
    await end(link, failed(await claim_one(link, desk)))
    desk.admin.execute("select outbox.retry_job(%s, 'tester')", (entry_of(desk, head),))
    assert await claim_ids(link, desk) == [head]


@pytest.fixture
def holding(desk: Desk) -> None:
    desk.admin.execute("update outbox.setting set ordering_on_failure = 'hold'")


@pytest.mark.usefixtures("holding")
async def test_a_dead_lettered_head_holds_its_followers_until_it_is_replayed(
    desk: Desk, link: Connection
) -> None:
    head, follower = desk.enqueue(ordering_key="a"), desk.enqueue(ordering_key="a")
    await end(link, failed(await claim_one(link, desk)))
    newcomer = desk.enqueue(ordering_key="a")
    assert await close_gaps(link) == 0
    assert await claim_ids(link, desk) == []
    desk.admin.execute("select outbox.retry_job(%s, 'tester')", (entry_of(desk, head),))
    for expected in (head, follower, newcomer):
        claimed = await claim_one(link, desk)
        assert claimed.job_id == expected
        await end(link, sent(claimed))
    assert traces(desk) == (0, 0)


@pytest.mark.usefixtures("holding")
async def test_nobody_is_kept_back_for_longer_than_a_hold(desk: Desk, link: Connection) -> None:
    desk.enqueue(ordering_key="a")
    follower = desk.enqueue(ordering_key="a")
    await end(link, failed(await claim_one(link, desk)))
    assert await close_gaps(link) == 0
    desk.admin.execute("update outbox.ordering_gap set since = since - interval '2 hours'")
    assert await close_gaps(link) == 1
    assert await claim_ids(link, desk) == [follower]


@pytest.mark.usefixtures("holding")
async def test_cancelling_the_dead_lettered_head_or_the_setting_lets_its_followers_go_on(
    desk: Desk, link: Connection
) -> None:
    for give_up in (
        "select result from outbox.cancel_jobs(array[%s::bigint], 'tester')",
        "update outbox.setting set ordering_on_failure = 'pass' where %s > 0 returning 'released'",
    ):
        head, follower = desk.enqueue(ordering_key="a"), desk.enqueue(ordering_key="a")
        await end(link, failed(await claim_one(link, desk)))
        assert desk.value(give_up, entry_of(desk, head)) == "released"
        assert await close_gaps(link) == 1
        claimed = await claim_one(link, desk)
        assert claimed.job_id == follower
        await end(link, sent(claimed))
        assert desk.status(head) == "failed"
        assert traces(desk) == (0, 0)


async def test_recording_never_waits_for_a_producer_that_holds_the_key(
    desk: Desk, link: Connection
) -> None:
    desk.enqueue(ordering_key="a")
    with desk.database.admin_connect() as producer:
        follower = enqueue_on(producer, ordering_key="a")
        await link.execute("set statement_timeout = '5s'")
        await end(link, sent(await claim_one(link, desk)))
        assert traces(desk) == (1, 1)
        assert await close_gaps(link) == 0
        producer.commit()
    assert await claim_ids(link, desk) == []
    assert await close_gaps(link) == 1
    assert await claim_ids(link, desk) == [follower]


async def test_a_dispatcher_comes_back_for_a_key_whose_producer_commits_late(desk: Desk) -> None:
    head = desk.enqueue(ordering_key="a")
    with desk.database.admin_connect() as producer:
        follower = enqueue_on(producer, ordering_key="a")
        async with dispatching(desk, {QUEUE: Scripted()}):
            await desk.until_status(head, "sent")
            assert traces(desk) == (1, 1)
            producer.commit()
            await desk.until_status(follower, "sent")
    assert traces(desk) == (0, 0)


async def test_a_key_whose_producer_rolled_back_goes_on(desk: Desk, link: Connection) -> None:
    desk.enqueue(ordering_key="a")
    with desk.database.admin_connect() as producer:
        enqueue_on(producer, ordering_key="a")
        await end(link, sent(await claim_one(link, desk)))
        producer.rollback()
    assert await close_gaps(link) == 1
    assert traces(desk) == (0, 0)


async def test_recording_never_waits_for_somebody_who_withdraws_the_next_follower(
    desk: Desk, link: Connection
) -> None:
    _, second, third = (desk.enqueue(ordering_key="a") for _ in range(3))
    with desk.database.admin_connect() as operator:
        operator.execute("select outbox.cancel_jobs(%s, 'tester')", ([entry_of(desk, second)],))
        await link.execute("set statement_timeout = '5s'")
        await end(link, sent(await claim_one(link, desk)))
        assert await claim_ids(link, desk) == [], "the third must not overtake the second"
        operator.commit()
    assert await close_gaps(link) == 1
    assert await claim_ids(link, desk) == [third]


async def test_a_head_that_a_repeatable_read_transaction_ends_leaves_nobody_behind(
    desk: Desk, link: Connection
) -> None:
    head = desk.enqueue(ordering_key="a")
    with desk.database.admin_connect() as operator:
        operator.execute("set transaction isolation level repeatable read")
        operator.execute("select 1")
        follower = desk.enqueue(ordering_key="a")
        operator.execute("select outbox.cancel_jobs(%s, 'tester')", ([entry_of(desk, head)],))
        operator.commit()
    assert await close_gaps(link) == 1
    assert await claim_ids(link, desk) == [follower]


async def test_what_follows_in_a_held_lane_ends_with_it_after_the_hold_s_longest_time(
    desk: Desk, link: Connection
) -> None:
    jobs = [desk.enqueue(ordering_key="a") for _ in range(3)]
    await engine.hold_lane(
        link, tenant_id="default", queue=QUEUE, scope="", code="x", reason="y", probe_s=60.0
    )
    desk.admin.execute("update outbox.lane set held_at = held_at - interval '1 day'")
    desk.admin.execute("update outbox.entry set available_at = available_at - interval '1 day'")
    assert await engine.expire_holds(link, epoch=EPOCH, hold_max_s=3600.0) == 3
    assert [desk.status(j) for j in jobs] == ["failed"] * 3
    assert traces(desk) == (0, 0)


async def test_who_replaces_the_head_goes_to_the_end(desk: Desk, link: Connection) -> None:
    dedup: dict[str, Any] = {
        "dedup_key": "d",
        "dedup_window_s": 60,
        "dedup_policy": "replace",
    }
    desk.enqueue(ordering_key="a", **dedup)
    second = desk.enqueue(ordering_key="a")
    successor = desk.enqueue(ordering_key="a", **dedup)
    for expected in (second, successor):
        claimed = await claim_one(link, desk)
        assert claimed.job_id == expected
        await end(link, sent(claimed))


class Receiver(Scripted):
    """Fails at random, and notes for each key which job's attempt begins and ends."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__(self._deliver_one)
        self._draw = draw
        self.began: dict[str, list[UUID]] = {}
        self.running_keys: set[str] = set()
        self.overlapped = False

    async def _deliver_one(self, message: Message) -> Outcome:
        key = json.loads(message.payload_json or b"{}")["key"]
        self.overlapped |= key in self.running_keys
        self.running_keys.add(key)
        self.began.setdefault(key, []).append(message.key)
        await asyncio.sleep(self._draw.choice([0, 0, 0.005]))
        self.running_keys.discard(key)
        outcomes: list[Outcome] = [
            Delivered(),
            Delivered(),
            Retryable(code="busy", reason="x", retry_after_s=0.0),
            Snoozed(until=datetime.now(UTC)),
            Rejected(code="no", reason="x"),
        ]
        return self._draw.choice(outcomes)


async def produce(desk: Desk, draw: random.Random, transactions: int) -> None:
    """Enqueue under random keys, commit or roll back; note the order within each key's lock."""
    async with await psycopg.AsyncConnection.connect(desk.database.admin_url) as connection:
        for _ in range(transactions):
            for key in sorted(draw.choices("abcd", k=draw.randint(1, 3))):
                job = {"queue": QUEUE, "payload": {"key": key}, "ordering_key": key}
                await connection.execute(
                    "insert into enqueued (key, job_id)"
                    " select %s, e.job_id from outbox.enqueue(%s::jsonb) as e",
                    (key, json.dumps(job)),
                )
                await asyncio.sleep(draw.choice([0, 0, 0.003]))
            await (connection.rollback() if draw.random() < 0.2 else connection.commit())


async def meddle(desk: Desk, draw: random.Random, times: int) -> None:
    """Cancel at random, and cut dispatchers off from the database."""
    async with await psycopg.AsyncConnection.connect(
        desk.database.admin_url, autocommit=True
    ) as connection:
        for _ in range(times):
            await asyncio.sleep(0.02)
            if draw.random() < 0.7:
                await connection.execute(
                    "select outbox.cancel_jobs(array(select id from outbox.entry"
                    " order by random() limit 1), 'tester')"
                )
            else:
                await connection.execute(
                    "select pg_terminate_backend(l.pid) from pg_locks as l"
                    " where l.locktype = 'advisory' and l.granted"
                    " and l.database = (select oid from pg_database"
                    "                   where datname = current_database()) limit 1"
                )


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_happens_each_key_goes_one_at_a_time_and_in_order(
    desk: Desk, seed: int
) -> None:
    draw = random.Random(seed)
    desk.admin.execute("create table enqueued (n serial, key text, job_id uuid)")
    receiver = Receiver(draw)
    async with (
        dispatching(desk, {QUEUE: receiver}, backoff=AT_ONCE),
        dispatching(desk, {QUEUE: receiver}, backoff=AT_ONCE),
    ):
        await asyncio.gather(*(produce(desk, draw, 25) for _ in range(4)), meddle(desk, draw, 30))
        await desk.until(lambda: desk.value("select count(*) from outbox.entry") == 0)
    order = {job_id: n for n, job_id in desk.rows("select n, job_id from enqueued")}
    for key, began in receiver.began.items():
        places = [order[job_id] for job_id in began]
        assert places == sorted(places), f"key {key}"
    assert not receiver.overlapped
    # What the last producers left that rolled back.
    desk.admin.execute("select outbox.close_gaps(500, 3600)")
    assert traces(desk) == (0, 0)

"""Dead letters are replayed by a filter: planned, paced, stopped, and each at most once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest

from outbox.store import engine, replays
from outbox.store.engine import Connection
from outbox.store.replays import ReplayFilter, ReplayPlan
from tests.engine.desk import (
    QUEUE,
    Desk,
    Scripted,
    claim,
    connect,
    dispatching,
    failed,
    in_s,
    register,
    sent,
)


@pytest.fixture
async def link(desk: Desk) -> AsyncIterator[Connection]:
    connection = await connect(desk.database)
    yield connection
    await connection.close()


async def fail(desk: Desk, link: Connection, count: int, **fields: Any) -> list[UUID]:
    """Have so many jobs, and let each fail for good."""
    jobs = [desk.enqueue(**fields) for _ in range(count)]
    epoch = await register(link, uuid4().int >> 66)
    claimed = await claim(link, desk, epoch=epoch, room=count)
    assert len(claimed) == count
    await engine.record(link, [failed(c) for c in claimed], [], [], epoch=epoch)
    await engine.retire(link, epoch=epoch)
    return jobs


async def begin(
    link: Connection,
    wanted: ReplayFilter | None = None,
    *,
    rate_per_s: float | None = None,
    jobs_max: int | None = None,
    tenant: str = "*",
) -> UUID:
    wanted = wanted or ReplayFilter()
    run_id = uuid4()
    planned = await replays.plan(link, wanted, tenant=tenant, jobs_max=jobs_max)
    said = await replays.begin(
        link,
        run_id,
        wanted,
        tenant=tenant,
        rate_per_s=rate_per_s,
        jobs_max=jobs_max,
        planned=planned,
        actor="ann",
        reason="the relay is back",
    )
    assert said == "begun"
    return run_id


def counts(desk: Desk, run_id: UUID) -> tuple[object, ...]:
    (row,) = desk.rows(
        "select state, replayed, expired, duplicate, suppressed, gone"
        " from outbox.replay_run where run_id = %s",
        run_id,
    )
    return row


async def plan(link: Connection, **fields: str) -> ReplayPlan:
    return await replays.plan(link, ReplayFilter(**fields), tenant="*", jobs_max=None)  # type: ignore[arg-type]


async def to_the_end(link: Connection, batch: int = 200) -> None:
    while await (await link.execute("select outbox.step_replay(%s)", (batch,))).fetchone() != (
        None,
    ):
        pass


async def test_a_plan_tells_what_would_be_sent_and_what_would_not(
    desk: Desk, link: Connection
) -> None:
    await fail(desk, link, 3)
    (late,) = await fail(desk, link, 1, expires_at=in_s(3600))
    (again,) = await fail(desk, link, 1)
    (gone,) = await fail(desk, link, 1)
    desk.admin.execute(
        "update outbox.job set expires_at = now() - interval '1 s' where job_id = %s", (late,)
    )
    desk.admin.execute("delete from outbox.job where job_id = %s", (gone,))
    desk.admin.execute(
        "insert into outbox.handler (kind, name) values ('channel', 'email')"
        " on conflict do nothing"
    )
    await fail(
        desk,
        link,
        1,
        channel="email",
        queue=QUEUE,
        to="Ann@Example.com",
        content="Hi",
        data={},
        meta={},
        created_at=in_s(-1),
    )
    desk.admin.execute(
        "insert into outbox.suppression (tenant_id, channel, address, code)"
        " values ('default', 'email', 'ann@example.com', 'receipt.bounced')"
    )
    desk.admin.execute(
        "select outbox.retry_job(id, 'bob') from outbox.job where job_id = %s", (again,)
    )
    found = await plan(link)
    assert (found.matched, found.would_send, found.expired) == (7, 3, 1)
    assert (found.duplicate, found.suppressed, found.gone) == (1, 1, 1)
    assert found.complete
    assert {line.verdict for line in found.sample} == {
        "would_send",
        "expired",
        "duplicate",
        "suppressed",
        "gone",
    }
    # The run does what the plan said, and a plan by itself does nothing.
    run_id = await begin(link)
    await to_the_end(link)
    assert counts(desk, run_id) == ("done", 3, 1, 1, 1, 1)
    assert (await plan(link)).would_send == 0


async def test_a_filter_chooses_and_what_fails_later_is_left_alone(
    desk: Desk, link: Connection
) -> None:
    await fail(desk, link, 2)
    assert (await plan(link, error_code="test.failed")).matched == 2
    assert (await plan(link, error_code="other")).matched == 0
    assert (await plan(link, queue="other")).matched == 0
    assert (await plan(link, reason="permanent", error_class="permanent")).matched == 2
    mine = await begin(link, ReplayFilter(error_code="test.failed"))
    theirs = await begin(link, tenant="acme")
    await fail(desk, link, 1)
    await to_the_end(link)
    assert counts(desk, mine) == ("done", 2, 0, 0, 0, 0)
    assert counts(desk, theirs) == ("done", 0, 0, 0, 0, 0)


async def test_each_dead_letter_is_replayed_once_however_many_step_and_whoever_dies(
    desk: Desk, link: Connection
) -> None:
    jobs = await fail(desk, link, 60)
    run_id = await begin(link)
    # One dies in the middle of a step: what it did is undone as a whole.
    async with await connect(desk.database) as dying:
        await dying.set_autocommit(False)
        await dying.execute("select outbox.step_replay(10)")
        await dying.rollback()
    assert counts(desk, run_id) == ("running", 0, 0, 0, 0, 0)
    rivals = [await connect(desk.database) for _ in range(3)]
    await asyncio.gather(*(to_the_end(rival, 7) for rival in rivals))
    await to_the_end(link, 7)
    for rival in rivals:
        await rival.close()
    assert counts(desk, run_id) == ("done", 60, 0, 0, 0, 0)
    done = (
        "select count(*), count(distinct id), bool_and(actor = 'ann') from outbox.operator_action"
    )
    assert desk.rows(f"{done} where action = 'replay'") == [(60, 60, True)]
    assert {desk.status(job) for job in jobs} == {"pending"}


async def test_a_rate_holds_and_nothing_gathers_while_nobody_is_there(
    desk: Desk, link: Connection
) -> None:
    await fail(desk, link, 30)
    run_id = await begin(link, rate_per_s=4.0)
    desk.admin.execute("update outbox.replay_run set stepped_at = now() - interval '1 hour'")
    again_s = await replays.step(link)
    assert counts(desk, run_id)[:2] == ("running", 4)
    assert again_s is not None
    assert 0 < again_s <= 0.25
    await replays.step(link)
    assert counts(desk, run_id)[1] == 4
    desk.admin.execute("update outbox.replay_run set stepped_at = now() - interval '0.5 s'")
    await replays.step(link)
    assert counts(desk, run_id)[1] in (5, 6)  # two for half a second, less what rounding takes


async def test_a_limit_and_a_stop_end_a_run_where_it_is(desk: Desk, link: Connection) -> None:
    await fail(desk, link, 10)
    limited = await begin(link, jobs_max=3)
    assert (await replays.plan(link, ReplayFilter(), tenant="*", jobs_max=3)).would_send == 3
    await to_the_end(link)
    assert counts(desk, limited) == ("done", 3, 0, 0, 0, 0)
    stopped = await begin(link, rate_per_s=1.0)
    await replays.step(link)
    assert await replays.stop(link, stopped, actor="bob") == "stopped"
    assert await replays.stop(link, stopped, actor="bob") == "ended"
    assert await replays.stop(link, uuid4(), actor="bob") == "unknown"
    assert await replays.step(link) is None
    assert counts(desk, stopped)[:2] == ("stopped", 1)
    actions = desk.rows(
        "select actor, action from outbox.operator_action where id is null order by action_id"
    )
    assert actions == [("ann", "replay.begin"), ("ann", "replay.begin"), ("bob", "replay.stop")]


async def test_dispatchers_take_a_replay_to_its_end_and_deliver_it(
    desk: Desk, link: Connection
) -> None:
    jobs = await fail(desk, link, 20)
    handler = Scripted()
    async with dispatching(desk, {QUEUE: handler}), dispatching(desk, {QUEUE: handler}):
        run_id = await begin(link, rate_per_s=50.0)
        for job in jobs:
            await desk.until_status(job, "sent")
        await desk.until(lambda: counts(desk, run_id)[0] == "done")
    assert sorted(handler.times_seen(job) for job in jobs) == [1] * 20
    assert counts(desk, run_id) == ("done", 20, 0, 0, 0, 0)
    why = "select distinct replayed_by, why, outcome, run_id from outbox.notification_replay"
    assert desk.rows(why) == [("ann", "the relay is back", "SENT", run_id)]


async def test_a_failed_later_series_is_the_one_that_counts(desk: Desk, link: Connection) -> None:
    (job,) = await fail(desk, link, 1)
    desk.admin.execute(
        "select outbox.retry_job(id, 'bob') from outbox.job where job_id = %s", (job,)
    )
    epoch = await register(link, 5)
    (claimed,) = await claim(link, desk, epoch=epoch)
    await engine.record(link, [failed(claimed)], [], [], epoch=epoch)
    run_id = await begin(link)
    await to_the_end(link)
    assert counts(desk, run_id) == ("done", 1, 0, 1, 0, 0)
    (claimed,) = await claim(link, desk, epoch=epoch)
    await engine.record(link, [sent(claimed)], [], [], epoch=epoch)
    assert (await plan(link)).duplicate == 2

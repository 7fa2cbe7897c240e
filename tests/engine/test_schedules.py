"""Schedules fire once, whoever is there, and make up for what was missed as they are told."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from outbox.store.engine import Connection
from outbox.store.schedules import fire_id
from outbox_dispatcher.schedules import fire_due
from tests.engine.desk import QUEUE, Desk, Scripted, connect, dispatching

JOB = {"queue": QUEUE, "payload": {"n": 1}}


@pytest.fixture
async def link(desk: Desk) -> AsyncIterator[Connection]:
    connection = await connect(desk.database)
    yield connection
    await connection.close()


def schedule(desk: Desk, *, late: str = "0 s", **columns: Any) -> None:
    """Make a schedule of every hour that was due so long ago."""
    values: dict[str, Any] = {"job": json.dumps(JOB), "trigger": {"every_s": 3600}, "clean": None}
    values |= {"misfire": "once"} | columns
    desk.admin.execute(
        "insert into outbox.schedule (tenant_id, name, trigger, job, clean, misfire, next_at,"
        " updated_by) values ('default', 'hourly', %s, %s, %s, %s,"
        " date_trunc('hour', now()) - %s::interval, 'ann')",
        (
            json.dumps(values["trigger"]),
            values["job"],
            values["clean"] and json.dumps(values["clean"]),
            values["misfire"],
            late,
        ),
    )


def figures(desk: Desk) -> tuple[Any, ...]:
    (row,) = desk.rows("select fires, missed, last_error, next_at > now() from outbox.schedule")
    return row


async def test_three_dispatchers_fire_once(desk: Desk) -> None:
    handler = Scripted()
    handlers = {QUEUE: handler}
    async with (
        dispatching(desk, handlers),
        dispatching(desk, handlers),
        # It has nothing to do with that queue, and fires all the same.
        dispatching(desk, {}, queues=frozenset({"other"})),
    ):
        desk.admin.execute(
            "insert into outbox.schedule (tenant_id, name, trigger, job, misfire, next_at,"
            " updated_by) values ('default', 'fast', '{\"every_s\": 1}', %s, 'all', now(), 'ann')",
            (json.dumps(JOB),),
        )
        fired = "select fires from outbox.schedule"
        await desk.until(lambda: desk.value(fired) >= 4)
        desk.admin.execute("update outbox.schedule set enabled = false")
        fires = desk.value(fired)
        await desk.until(lambda: len(handler.seen) >= fires)
    assert desk.value("select count(*) from outbox.job") == fires
    assert len({message.key for message in handler.seen}) == len(handler.seen) == fires
    at = "select count(distinct job -> 'meta' ->> 'fire_at') from outbox.job"
    assert desk.value(at) == fires


async def test_a_fire_that_was_recorded_nowhere_makes_no_second_job(
    desk: Desk, link: Connection
) -> None:
    schedule(desk)
    (before,) = desk.rows("select schedule_id, next_at from outbox.schedule")
    await fire_due(link)
    desk.admin.execute("update outbox.schedule set next_at = %s", (before[1],))
    await fire_due(link)
    assert desk.rows("select job_id, created_at from outbox.job") == [
        (fire_id(before[0], before[1]), before[1])
    ]
    assert figures(desk)[2] is None


@pytest.mark.parametrize(
    ("misfire", "jobs", "missed"), [("skip", 0, 3), ("once", 1, 2), ("all", 3, 0)]
)
async def test_missed_hours_are_treated_as_the_schedule_says(
    desk: Desk, link: Connection, misfire: str, jobs: int, missed: int
) -> None:
    schedule(desk, late="2 hours", misfire=misfire)
    # At the top of an hour the newest is not missed yet.
    desk.admin.execute("update outbox.schedule set misfire_grace_s = 1")
    now = desk.value("select now() - date_trunc('hour', now()) < interval '2 s'")
    if now:
        pytest.skip("this second belongs to two hours")
    await fire_due(link)
    assert desk.value("select count(*) from outbox.job") == jobs
    assert figures(desk) == (jobs, missed, None, True)


async def test_a_fire_that_fails_shows_why_and_the_next_one_is_tried(
    desk: Desk, link: Connection
) -> None:
    schedule(desk, job=json.dumps({"queue": "nobody", "payload": {}}))
    await fire_due(link)
    fires, _, error, ahead = figures(desk)
    assert (fires, ahead) == (0, True)
    assert "/queue" in error
    desk.handle("nobody")
    desk.admin.execute("update outbox.schedule set next_at = now()")
    await fire_due(link)
    assert figures(desk)[:3] == (1, 0, None)


async def test_the_last_few_are_kept_by_a_clean_on_a_schedule(desk: Desk) -> None:
    jobs = [desk.enqueue() for _ in range(5)]
    async with dispatching(desk, {QUEUE: Scripted()}):
        for job in jobs:
            await desk.until_status(job, "sent")
        schedule(desk, job=None, clean={"queue": QUEUE, "status": "sent", "keep_last": 2})
        await desk.until(lambda: desk.value("select count(*) from outbox.job") == 2)
    left = {row[0] for row in desk.rows("select job_id from outbox.job")}
    assert left == set(jobs[-2:])
    actions = desk.rows("select actor, detail ->> 'keep_last' from outbox.operator_action")
    assert actions == [("schedule hourly", "2")]

"""Far polls that have become slow, as under a snapshot that keeps dead entries from vacuum."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from time import monotonic

import pytest

from outbox.store import engine
from outbox.store.engine import Connection, Upcoming
from outbox_dispatcher import floors
from outbox_dispatcher.wakeup import BUSY_POLL_S
from tests.engine.desk import QUEUE, Desk, Scripted, dispatching, enqueue_on, in_s

POLL_TAKES_S = 0.15
LATE_S_MAX = 1.5
"""Three seconds is what the next poll would wait for; a loaded machine is late by itself."""


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each far poll began; from now on each takes its time."""
    began_at: list[float] = []
    next_due = engine.next_due

    async def slowly(connection: Connection) -> list[Upcoming]:
        began_at.append(monotonic())
        found = await next_due(connection)
        await asyncio.sleep(POLL_TAKES_S)
        return found

    monkeypatch.setattr(engine, "next_due", slowly)
    return began_at


async def test_slow_polls_get_a_twentieth_of_the_time(desk: Desk, polls: list[float]) -> None:
    async with dispatching(desk, {QUEUE: Scripted()}, poll_s_min=0.02, poll_s_max=0.02):
        await desk.until(lambda: len(polls) == 4)
    # A single slow one counts for nothing.
    pauses_s = [later - earlier for earlier, later in pairwise(polls[1:])]
    assert min(pauses_s) >= POLL_TAKES_S / 0.05


async def test_what_becomes_due_starts_in_time_though_polls_are_slow(
    desk: Desk, polls: list[float]
) -> None:
    async with dispatching(desk, {QUEUE: Scripted()}, poll_s_min=0.02, poll_s_max=0.02):
        await desk.until(lambda: len(polls) == 1)
        # The second poll sees it, and the third is three seconds later.
        job_id = desk.enqueue(send_after=in_s(1.0))
        await desk.until_status(job_id, "sent")
    late_s = desk.value(
        "select extract(epoch from d.started_at - j.send_after)::float8"
        " from outbox.delivery as d join outbox.job as j using (id)"
    )
    assert 0 <= late_s < LATE_S_MAX


async def test_a_bell_is_heard_though_polls_are_slow(desk: Desk, polls: list[float]) -> None:
    async with dispatching(desk, {QUEUE: Scripted()}, poll_s_min=0.02, poll_s_max=0.02):
        await desk.until(lambda: len(polls) == 3)
        rung_at = monotonic()
        job_id = desk.enqueue(notify=True)
        await desk.until_status(job_id, "sent")
        assert monotonic() - rung_at < LATE_S_MAX


async def test_what_nobody_rings_for_starts_in_time_though_polls_are_slow(
    desk: Desk, polls: list[float]
) -> None:
    async with dispatching(desk, {QUEUE: Scripted()}, poll_s_min=0.02, poll_s_max=0.02):
        await desk.until_status(desk.enqueue(), "sent")
        await desk.until(lambda: len(polls) >= 2)
        began = monotonic()
        await desk.until_status(desk.enqueue(), "sent")
        assert monotonic() - began < LATE_S_MAX


async def test_what_commits_late_starts_in_time_though_polls_are_slow(
    desk: Desk, polls: list[float]
) -> None:
    async with dispatching(desk, {QUEUE: Scripted()}, poll_s_min=0.02, poll_s_max=0.02):
        await desk.until(lambda: len(polls) >= 2)
        with desk.database.admin_connect() as slow:
            late = enqueue_on(slow)
            await desk.until_status(desk.enqueue(notify=True), "sent")
            began = monotonic()
        # Closing has committed it; its place lies below what was claimed since.
        await desk.until_status(late, "sent")
        assert monotonic() - began < LATE_S_MAX


async def test_suspects_of_a_crash_start_one_after_the_other_though_polls_are_slow(
    desk: Desk, polls: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floors, "NEAR_S", 0.0)  # near looks find what was given back lately
    jobs = [desk.enqueue() for _ in range(20)]
    desk.admin.execute("update outbox.entry set crashes = 1")
    handler = Scripted()
    async with dispatching(desk, {QUEUE: handler}, poll_s_min=0.02, poll_s_max=0.02):
        await desk.until(lambda: bool(handler.seen))
        began = monotonic()
        await desk.until(lambda: len(handler.seen) == len(jobs))
        assert monotonic() - began < 2 * LATE_S_MAX
    assert handler.running_max == 1


async def test_a_due_job_that_cannot_be_claimed_is_not_asked_for_all_the_time(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[float] = []
    next_due = engine.next_due

    async def look(connection: Connection) -> list[Upcoming]:
        looked_at.append(monotonic())
        return await next_due(connection)

    monkeypatch.setattr(engine, "next_due", look)
    job_id = desk.enqueue()
    with desk.database.admin_connect() as operator:
        operator.execute("select from outbox.entry for update")
        async with dispatching(desk, {QUEUE: Scripted()}, poll_s_min=0.02, poll_s_max=0.02):
            await desk.until(lambda: len(looked_at) == 12)
            operator.rollback()
            await desk.until_status(job_id, "sent")
    assert looked_at[11] - looked_at[1] >= 5 * BUSY_POLL_S

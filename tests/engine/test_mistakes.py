"""Mistakes around a delivery, a handler's and our own: each is told, and none stops a lane."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from outbox.message import Message
from outbox.outcome import Delivered, Outcome
from outbox_dispatcher.gates import Gates
from outbox_dispatcher.preparer import Preparer
from outbox_dispatcher.recorder import Recorder
from outbox_dispatcher.slots import Item
from tests.engine.desk import QUEUE, Desk, Scripted, dispatching, drain, in_s

SLOTS = 2
MISTAKES = 2 * SLOTS
"""More than there are slots: were each to take one along, nothing would be left."""


class GivesUp(BaseException):
    """What libraries raise that want no `except Exception` to hold it up."""


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError("there are no words")


def returns_nothing() -> Any:
    return None


def returns_an_answer() -> Any:
    return {"status": 200}


def cancels_itself() -> Any:
    raise asyncio.CancelledError


def gives_up() -> Any:
    raise GivesUp


def is_unspeakable() -> Any:
    raise Unspeakable


def is_bottomless() -> Any:
    return is_bottomless()


def failing(mistake: Callable[[], Any]) -> Callable[[Message], Awaitable[Outcome]]:
    async def deliver(message: Message) -> Outcome:
        if message.payload_json == b'{"bad": true}':
            return mistake()  # type: ignore[no-any-return]
        return Delivered()

    return deliver


@pytest.mark.parametrize(
    ("mistake", "code"),
    [
        (returns_nothing, "handler.error"),
        (returns_an_answer, "handler.error"),
        (cancels_itself, "handler.error"),
        (gives_up, "handler.error"),
        (is_unspeakable, "dispatcher.error"),
        (is_bottomless, "handler.error"),
    ],
)
async def test_a_handler_s_mistake_is_an_attempt_that_failed_and_its_slot_lives_on(
    desk: Desk, mistake: Callable[[], Any], code: str
) -> None:
    bad = [desk.enqueue(payload={"bad": True}) for _ in range(MISTAKES)]
    good = [desk.enqueue() for _ in range(MISTAKES)]
    with capture_logs() as lines:
        await drain(desk, {QUEUE: Scripted(failing(mistake))}, concurrency={QUEUE: SLOTS})
    assert [desk.status(job_id) for job_id in good] == ["sent"] * MISTAKES
    for job_id in bad:
        assert desk.deliveries(job_id) == [("RETRYING", 1, code, False)]
    told = {line.get("job_id") for line in lines if line["log_level"] in ("warning", "error")}
    assert told >= {str(job_id) for job_id in bad}


async def test_a_mistake_of_ours_is_told_with_its_place_and_costs_one_try(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def saw(self: Gates, item: Item, outcome: Outcome) -> None:
        raise KeyError("ann@cinema.example")

    monkeypatch.setattr(Gates, "saw", saw)
    jobs = [desk.enqueue(max_attempts=1) for _ in range(MISTAKES)]
    with capture_logs() as lines:
        await drain(desk, {QUEUE: Scripted()}, concurrency={QUEUE: SLOTS})
    for job_id in jobs:
        assert desk.deliveries(job_id) == [("FAILED", 1, "dispatcher.error", False)]
    told = [line for line in lines if line["event"] == "unexpected error around a delivery"]
    assert len(told) == MISTAKES
    assert "executor.py" in told[0]["where"]
    assert "ann@" not in str(lines), "an error's text may name somebody"


async def test_a_job_that_gets_no_outcome_at_all_loses_its_lease_and_stops_nobody(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {desk.enqueue(payload={"bad": True}) for _ in range(MISTAKES)}
    finish = Recorder.finish

    def hopeless(self: Recorder, item: Item, *rest: Any) -> None:
        if item.claimed.job_id in bad:
            raise RuntimeError("not this one")
        finish(self, item, *rest)

    monkeypatch.setattr(Recorder, "finish", hopeless)
    async with dispatching(desk, {QUEUE: Scripted()}, concurrency={QUEUE: SLOTS}) as dispatcher:
        good = [desk.enqueue(notify=True) for _ in range(MISTAKES)]
        for job_id in good:
            await desk.until_status(job_id, "sent")
        await desk.until(lambda: dispatcher.outstanding() == 0)
        # Their leases end, and end again: whoever looks next takes them back.
        end_leases = "update outbox.entry set lease_until = now() where lease_until is not null"
        for job_id in bad:
            while desk.status(job_id) != "failed":
                desk.admin.execute(end_leases)
                await asyncio.sleep(0.05)
    for job_id in bad:
        lost = ("RETRYING", 1, "lease.lost", False)
        assert desk.deliveries(job_id) == [lost, lost, ("FAILED", 1, "lease.lost", False)]


async def test_a_job_that_cannot_be_prepared_takes_none_of_its_batch_along(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [
        desk.enqueue(
            channel="email",
            to="ann@cinema.example",
            subject="hello",
            content="hello",
            data={},
            created_at=in_s(0),
            meta={"event_type": "test"},
        )
        for _ in range(8)
    ]
    bad = jobs[3]
    read = Preparer._read

    def stumbling(self: Preparer, item: Item) -> Any:
        if item.claimed.job_id == bad:
            raise KeyError("ann@cinema.example")
        return read(self, item)

    monkeypatch.setattr(Preparer, "_read", stumbling)
    handler = Scripted()
    with capture_logs() as lines:
        async with dispatching(desk, {}, channels={"email": handler}):
            for job_id in jobs:
                await desk.until(lambda job_id=job_id: desk.deliveries(job_id) != [])  # type: ignore[misc]
    assert {message.key for message in handler.seen} == set(jobs) - {bad}
    assert desk.deliveries(bad) == [("RETRYING", 1, "dispatcher.error", False)]
    assert "ann@" not in str(lines)

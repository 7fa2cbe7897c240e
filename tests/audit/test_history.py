"""The views `notification_history` and `notification_delivery`: what happened, in its order."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from outbox.store import engine
from tests.audit.hand import Hand
from tests.engine.desk import Desk, in_s

NEXT = {
    "scheduled": {"pending", "expired", "cancelled"},
    "pending": {"processing", "expired", "cancelled", "failed"},
    "processing": {
        "sent",
        "retrying",
        "failed",
        "scheduled",
        "pending",
        "expired",
        "cancelled",
    },
    "retrying": {"pending", "expired", "cancelled"},
    "failed": {"pending"},
}
"""The table of docs/lifecycle.md. A claim that was handed back leaves no row."""


def told(desk: Desk, job_id: UUID) -> list[tuple[str, int, int]]:
    """Return (status, series, attempt) of each change."""
    return [
        (status, series, attempt)
        for status, series, attempt in desk.rows(
            "select status, series, attempt from outbox.notification_history where job_id = %s"
            " order by series, at, step",
            job_id,
        )
    ]


async def test_a_scheduled_job_that_is_retried_and_sent_shows_each_step(
    desk: Desk, hand: Hand
) -> None:
    job_id = desk.enqueue(send_after=in_s(3600))
    hand.let_time_come(job_id)
    await hand.retry_at(await hand.claim_one(), hand.in_s(3600))
    hand.let_time_come(job_id)
    await hand.deliver(await hand.claim_one())
    assert told(desk, job_id) == [
        ("scheduled", 1, 0),
        ("pending", 1, 0),
        ("processing", 1, 1),
        ("retrying", 1, 1),
        ("pending", 1, 1),
        ("processing", 1, 2),
        ("sent", 1, 2),
    ]


async def test_a_change_carries_its_error(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    await hand.retry_at(await hand.claim_one(), hand.now(), "http.503")
    await hand.fail(await hand.claim_one(), "http.410")
    errors = desk.rows(
        "select status, error from outbox.notification_history where job_id = %s"
        " and error is not null order by series, at, step",
        job_id,
    )
    assert errors == [
        ("pending", "the receiver said http.503"),
        ("failed", "the receiver said http.410"),
    ]


async def test_a_running_attempt_is_the_last_change(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    await hand.claim()
    assert told(desk, job_id) == [("pending", 1, 0), ("processing", 1, 1)]


async def test_what_was_handed_back_before_it_started_leaves_no_change(
    desk: Desk, hand: Hand
) -> None:
    job_id = desk.enqueue()
    await hand.release(await hand.claim_one())
    assert desk.history(job_id) == ["pending"]


async def test_a_held_attempt_goes_back_to_pending(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    await hand.hold(await hand.claim_one(), scope="template:x")
    assert desk.history(job_id) == ["pending", "processing", "pending"]
    (row,) = desk.rows(
        "select status, error_class, error_code, attempt from outbox.notification_delivery"
    )
    assert row == ("RETRYING", "held", "smtp.login", 1)


async def test_a_snoozed_attempt_goes_back_to_scheduled_and_is_due_again(
    desk: Desk, hand: Hand
) -> None:
    job_id = desk.enqueue()
    await hand.snooze_until(await hand.claim_one(), hand.in_s(3600))
    assert desk.history(job_id) == ["pending", "processing", "scheduled"]
    hand.let_time_come(job_id)
    assert desk.history(job_id) == ["pending", "processing", "scheduled", "pending"]
    assert desk.rows("select status, error_class from outbox.notification_delivery") == [
        ("RETRYING", "snoozed")
    ]


async def test_a_crashed_attempt_is_there_with_its_error_code_and_the_late_outcome_too(
    desk: Desk, hand: Hand
) -> None:
    job_id = desk.enqueue()
    lost = await hand.claim_one()
    await hand.die([lost])
    again = await hand.claim_one()
    await hand.deliver(lost)
    await hand.deliver(again)
    assert desk.deliveries(job_id) == [
        ("RETRYING", 1, "lease.lost", False),
        ("SENT", 1, None, True),
        ("SENT", 1, None, False),
    ]
    assert desk.history(job_id) == ["pending", "processing", "pending", "processing", "sent"]


async def test_the_third_crash_is_the_end(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    for _ in range(3):
        await hand.die(await hand.claim())
    assert desk.history(job_id) == [*["pending", "processing"] * 3, "failed"]


async def test_a_job_that_arrived_too_late_has_nothing_but_its_end(desk: Desk) -> None:
    job_id = desk.enqueue(expires_at=in_s(-1))
    assert told(desk, job_id) == [("expired", 1, 0)]


async def test_a_job_withdrawn_before_its_time_never_reads_pending(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue(send_after=in_s(3600))
    hand.cancel(job_id)
    hand.let_time_come(job_id)
    assert desk.history(job_id) == ["scheduled", "cancelled"]


async def test_a_promoted_job_becomes_pending_once_also_when_its_old_time_has_come(
    desk: Desk, hand: Hand
) -> None:
    job_id = desk.enqueue(send_after=in_s(3600))
    assert hand.promote(job_id) == "promoted"
    assert told(desk, job_id) == [("scheduled", 1, 0), ("pending", 1, 0)]
    claimed = await hand.claim_one()
    hand.let_time_come(job_id)
    assert told(desk, job_id)[2:] == [("processing", 1, 1)]
    await hand.deliver(claimed)
    assert desk.history(job_id) == ["scheduled", "pending", "processing", "sent"]


async def test_a_promoted_retry_becomes_pending_once_also_when_its_old_time_has_come(
    desk: Desk, hand: Hand
) -> None:
    job_id = desk.enqueue()
    await hand.retry_at(await hand.claim_one(), hand.in_s(3600))
    hand.promote(job_id)
    assert told(desk, job_id)[2:] == [("retrying", 1, 1), ("pending", 1, 1)]
    claimed = await hand.claim_one()
    hand.let_time_come(job_id)
    await hand.deliver(claimed)
    assert desk.history(job_id)[2:] == ["retrying", "pending", "processing", "sent"]


async def test_a_replay_is_a_new_series_and_the_old_one_stays(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    await hand.fail(await hand.claim_one())
    hand.retry(job_id, "replay")
    await hand.deliver(await hand.claim_one())
    assert told(desk, job_id) == [
        ("pending", 1, 0),
        ("processing", 1, 1),
        ("failed", 1, 1),
        ("pending", 2, 0),
        ("processing", 2, 1),
        ("sent", 2, 1),
    ]
    assert desk.rows(
        "select series, lease_no, status from outbox.notification_delivery order by lease_no"
    ) == [(1, 1, "FAILED"), (2, 2, "SENT")]


async def test_a_hold_that_lasted_too_long_ends_as_failed(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    lane = await hand.hold(await hand.claim_one())
    desk.admin.execute(
        "update outbox.lane set held_at = held_at - interval '8 days' where lane_id = %s", (lane,)
    )
    desk.admin.execute("update outbox.entry set available_at = available_at - interval '8 days'")
    assert await engine.expire_holds(hand.link, epoch=hand.epoch, hold_max_s=7 * 86_400) == 1
    assert desk.history(job_id) == ["pending", "processing", "pending", "failed"]


async def test_a_delivery_shows_what_was_said_to_whom_by_which_template(
    desk: Desk, hand: Hand
) -> None:
    desk.enqueue(user_id="user-1", locale="ru", meta={"event_id": "e-1"})
    await hand.deliver(
        await hand.claim_one(),
        provider="smtp",
        provider_message_id="<1@x>",
        recipient="Ann@example.com",
        subject="Здравствуйте",
        template_version=3,
        content_sha256="ab" * 32,
    )
    (row,) = desk.rows(
        "select user_id, locale, event_id, provider, provider_message_id, recipient, subject,"
        " template_version, content_sha256, duration_ms,"
        " recipient_hash = outbox.address_hash('ann@EXAMPLE.com')"
        " from outbox.notification_delivery"
    )
    assert row == (
        *("user-1", "ru", "e-1", "smtp", "<1@x>", "Ann@example.com", "Здравствуйте"),
        *(3, "ab" * 32, 5, True),
    )


async def _step(hand: Hand, job_id: UUID, draw: random.Random) -> None:
    """Do one thing that can be done to the job as it stands."""
    status = hand.desk.status(job_id)
    if status in ("scheduled", "retrying"):
        match draw.choice(["promote", "wait", "wait", "cancel", "expire"]):
            case "promote":
                hand.promote(job_id)
            case "wait":
                hand.let_time_come(job_id)
            case "cancel":
                hand.cancel(job_id)
            case _:
                await hand.expire(job_id)
    elif status == "pending":
        if draw.random() < 0.08:
            hand.cancel(job_id)
        else:
            await _attempt(hand, draw)
    elif status == "failed":
        hand.retry(job_id)


async def _attempt(hand: Hand, draw: random.Random) -> None:
    claimed = await hand.claim_one()
    assert hand.desk.history(claimed.job_id)[-1] == "processing"
    later = hand.now() if draw.random() < 0.3 else hand.in_s(3600)
    match draw.choice(["sent", "fail", "retry", "retry", "snooze", "die", "release", "cancel"]):
        case "sent":
            await hand.deliver(claimed)
        case "fail":
            await hand.fail(claimed)
        case "retry":
            await hand.retry_at(claimed, later)
        case "snooze":
            await hand.snooze_until(claimed, later)
        case "die":
            await hand.die([claimed])
            await hand.deliver(claimed)
        case "release":
            await hand.release(claimed)
        case _:
            hand.cancel(claimed.job_id)
            await hand.retry_at(claimed, later)


@pytest.mark.parametrize("seed", range(12))
async def test_history_is_always_a_path_through_the_table_and_ends_in_the_status(
    desk: Desk, hand: Hand, seed: int
) -> None:
    draw = random.Random(seed)
    later: dict[str, Any] = {"send_after": in_s(3600)} if draw.random() < 0.5 else {}
    job_id = desk.enqueue(expires_at=in_s(86_400), **later)
    for _ in range(14):
        await _step(hand, job_id, draw)
        path = desk.history(job_id)
        assert path[-1] == desk.status(job_id)
        for before, after in pairwise(path):
            assert after in NEXT.get(before, set()), path

"""The view `notification`: every public status, what a job waits for, and the keys it shows."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from tests.audit.hand import Hand
from tests.engine.desk import QUEUE, Desk, in_s


def shown(desk: Desk, job_id: UUID, columns: str = "status, waiting_for") -> tuple[Any, ...]:
    (row,) = desk.rows(f"select {columns} from outbox.notification where job_id = %s", job_id)
    return row


def test_a_due_job_is_pending_and_waits_for_a_dispatcher(desk: Desk) -> None:
    assert shown(desk, desk.enqueue()) == ("pending", "dispatcher")


def test_a_job_whose_send_after_lies_ahead_is_scheduled(desk: Desk) -> None:
    at = in_s(3600)
    job_id = desk.enqueue(send_after=at)
    assert shown(desk, job_id, "status, waiting_for, send_after, due_at") == (
        "scheduled",
        "send_after",
        at,
        at,
    )


async def test_a_claimed_job_is_processing_and_waits_for_nothing(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    await hand.claim()
    assert shown(desk, job_id, "status, waiting_for, attempts") == ("processing", None, 1)


async def test_a_released_job_is_pending_again_with_its_try(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    await hand.release(await hand.claim_one())
    assert shown(desk, job_id, "status, attempts") == ("pending", 0)
    assert desk.deliveries(job_id) == []


async def test_a_failed_attempt_with_another_ahead_is_retrying(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    at = hand.in_s(3600)
    await hand.retry_at(await hand.claim_one(), at)
    assert shown(
        desk,
        job_id,
        "status, waiting_for, due_at, attempts, last_error_class, last_error_code, last_error",
    ) == ("retrying", "backoff", at, 1, "temporary", "http.503", "the receiver said http.503")


async def test_a_retry_that_is_due_is_pending(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    await hand.retry_at(await hand.claim_one(), hand.now())
    assert shown(desk, job_id) == ("pending", "dispatcher")


async def test_a_snoozed_job_is_scheduled_and_has_its_try_back(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    await hand.snooze_until(await hand.claim_one(), hand.in_s(3600))
    assert shown(desk, job_id, "status, waiting_for, attempts") == ("scheduled", "snooze", 0)


@pytest.mark.parametrize("scope", ["", "template:welcome_email"])
async def test_a_held_job_is_pending_and_says_what_holds_it(
    desk: Desk, hand: Hand, scope: str
) -> None:
    job_id = desk.enqueue()
    await hand.hold(await hand.claim_one(), scope=scope)
    assert shown(
        desk, job_id, "status, waiting_for, attempts, hold_code, hold_reason, stopped_at is null"
    ) == ("pending", "lane held", 0, "smtp.login", "535 who are you", False)


async def test_a_job_in_a_paused_lane_says_who_paused_it(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    desk.admin.execute("select outbox.set_paused(%s, null, true, 'ann')", (QUEUE,))
    assert shown(desk, job_id, "status, waiting_for, paused_by") == (
        "pending",
        "lane paused",
        "ann",
    )
    desk.admin.execute("select outbox.set_paused(%s, null, false, 'ann')", (QUEUE,))
    assert shown(desk, job_id, "waiting_for, paused_by") == ("dispatcher", None)


async def test_a_delivered_job_is_sent(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    await hand.deliver(await hand.claim_one())
    assert shown(
        desk, job_id, "status, waiting_for, attempts, due_at, finished_at is null, last_error"
    ) == ("sent", None, 1, None, False, None)


async def test_a_rejected_job_is_failed_and_has_a_dead_letter(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    await hand.fail(await hand.claim_one(), "recipient.no_address")
    assert shown(desk, job_id, "status, last_error_code") == ("failed", "recipient.no_address")
    assert desk.rows("select job_id, reason from outbox.dead_letter") == [(job_id, "permanent")]


def test_a_job_that_arrives_too_late_is_expired(desk: Desk) -> None:
    job_id = desk.enqueue(expires_at=in_s(-1))
    assert shown(desk, job_id, "status, attempts, last_error_code") == (
        "expired",
        0,
        "job.expired",
    )


async def test_a_waiting_job_whose_time_runs_out_is_expired(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue(expires_at=in_s(3600))
    await hand.expire(job_id)
    assert shown(desk, job_id) == ("expired", None)


async def test_a_claimed_job_that_expires_before_its_start_is_expired(
    desk: Desk, hand: Hand
) -> None:
    job_id = desk.enqueue(expires_at=in_s(3600))
    claimed = await hand.claim_one()
    await hand.record(hand.ended(claimed, "EXPIRED", started_at=None, attempt=0))
    assert shown(desk, job_id, "status, attempts") == ("expired", 0)


async def test_a_withdrawn_job_is_cancelled(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue(send_after=in_s(3600))
    assert hand.cancel(job_id, "the film was withdrawn") == "cancelled"
    assert shown(desk, job_id, "status, waiting_for, last_error") == (
        "cancelled",
        None,
        "the film was withdrawn",
    )


async def test_a_job_withdrawn_while_it_runs_is_processing_until_its_attempt_has_failed(
    desk: Desk, hand: Hand
) -> None:
    job_id = desk.enqueue()
    claimed = await hand.claim_one()
    assert hand.cancel(job_id) == "processing"
    assert shown(desk, job_id) == ("processing", None)
    await hand.retry_at(claimed, hand.in_s(60))
    assert shown(desk, job_id) == ("cancelled", None)


async def test_a_retried_job_is_pending_again_and_ends_in_its_new_series(
    desk: Desk, hand: Hand
) -> None:
    job_id = desk.enqueue()
    await hand.fail(await hand.claim_one())
    assert hand.retry(job_id) == "retried"
    assert shown(desk, job_id, "status, series, attempts, finished_at") == ("pending", 2, 0, None)
    await hand.deliver(await hand.claim_one())
    assert shown(desk, job_id, "status, series, attempts") == ("sent", 2, 1)


async def test_a_late_outcome_does_not_count_for_the_status(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    lost = await hand.claim_one()
    await hand.die([lost])
    assert shown(desk, job_id, "status, waiting_for, attempts") == ("pending", "dispatcher", 0)
    await hand.deliver(lost)
    assert shown(desk, job_id, "status, last_error_code") == ("pending", "lease.lost")


async def test_the_newest_receipt_stands_beside_the_status(desk: Desk, hand: Hand) -> None:
    job_id = desk.enqueue()
    await hand.deliver(await hand.claim_one())
    for status in ("delivered", "complained"):
        desk.admin.execute(
            "insert into outbox.receipt (id, tenant_id, status, at)"
            " values (%s, 'default', %s, clock_timestamp())",
            (hand.id_of(job_id), status),
        )
    assert shown(desk, job_id, "status, receipt_status") == ("sent", "complained")


async def test_a_job_shows_all_of_its_keys_and_one_row_whatever_it_went_through(
    desk: Desk, hand: Hand
) -> None:
    job_id = desk.enqueue(
        user_id="user-1",
        category="news",
        locale="kz",
        max_attempts=3,
        meta={"event_id": "e-1", "campaign_id": "c-1", "priority": "high"},
    )
    await hand.retry_at(await hand.claim_one(), hand.now())
    await hand.fail(await hand.claim_one())
    hand.retry(job_id)
    await hand.deliver(await hand.claim_one())
    assert shown(
        desk,
        job_id,
        "tenant_id, user_id, channel, queue, event_id, campaign_id, category, locale, priority",
    ) == ("default", "user-1", None, QUEUE, "e-1", "c-1", "news", "kz", "high")
    assert shown(desk, job_id, "id = outbox.id_of('default', job_id)") == (True,)

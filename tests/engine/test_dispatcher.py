"""A dispatcher at work: what a job's life looks like from the outside."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from outbox.backoff import Backoff
from outbox.message import Message
from outbox.outcome import (
    Delivered,
    Misconfigured,
    Outcome,
    Rejected,
    Retryable,
    Snoozed,
)
from tests.engine.desk import QUEUE, Desk, Scripted, dispatching, drain, in_s

AT_ONCE = Backoff(delays_s=(0.0,), jitter=0.0, attempts_max=3)


def always(outcome: Outcome) -> Scripted:
    async def deliver(message: Message) -> Outcome:
        return outcome

    return Scripted(deliver)


async def test_a_committed_job_is_delivered_once_and_its_history_says_so(desk: Desk) -> None:
    job_id = desk.enqueue()
    handler = Scripted()
    await drain(desk, {QUEUE: handler})
    assert handler.times_seen(job_id) == 1
    assert desk.status(job_id) == "sent"
    assert desk.deliveries(job_id) == [("SENT", 1, None, False)]
    assert desk.history(job_id) == ["pending", "processing", "sent"]
    assert desk.value("select count(*) from outbox.dispatcher") == 0


async def test_a_rolled_back_job_is_never_delivered(desk: Desk) -> None:
    handler = Scripted()
    with desk.database.admin_connect() as producer:
        producer.execute(
            'select outbox.enqueue(\'{"queue": "work", "payload": {}}\'::jsonb, notify => true)'
        )
        async with dispatching(desk, {QUEUE: handler}):
            producer.rollback()
            kept = desk.enqueue(notify=True)
            await desk.until_status(kept, "sent")
    assert [message.key for message in handler.seen] == [kept]


async def test_the_payload_reaches_the_handler_digit_by_digit(desk: Desk) -> None:
    exact = '{"n": 12345678901234567890.12345678901234567890, "s": "Нұржан \\u0001"}'
    desk.admin.execute(
        "select outbox.enqueue(jsonb_build_object('queue', 'work', 'payload', %s::jsonb))",
        (exact,),
    )
    handler = Scripted()
    await drain(desk, {QUEUE: handler})
    assert handler.seen[0].payload_json is not None
    assert b"12345678901234567890.12345678901234567890" in handler.seen[0].payload_json


async def test_a_retryable_failure_is_tried_again_until_its_tries_are_used_up(desk: Desk) -> None:
    job_id = desk.enqueue(max_attempts=3)
    handler = always(Retryable(code="busy", reason="come back", retry_after_s=0.0))
    async with dispatching(desk, {QUEUE: handler}):
        await desk.until_status(job_id, "failed")
    assert handler.times_seen(job_id) == 3
    assert [message.attempt for message in handler.seen] == [1, 2, 3]
    assert desk.deliveries(job_id) == [
        ("RETRYING", 1, "busy", False),
        ("RETRYING", 2, "busy", False),
        ("FAILED", 3, "busy", False),
    ]
    assert desk.rows("select reason, attempts, error_message from outbox.dead_letter") == [
        ("exhausted", 3, "come back")
    ]


async def test_attempts_are_counted_by_what_they_came_to(desk: Desk) -> None:
    job_id = desk.enqueue(max_attempts=3)
    handler = always(Retryable(code="busy", reason="x", retry_after_s=0.0))
    async with dispatching(desk, {QUEUE: handler}):
        await desk.until_status(job_id, "failed")
    desk.enqueue()
    desk.enqueue()
    await drain(desk, {QUEUE: Scripted()})
    assert desk.rows(
        "select a.value ->> 0, a.value ->> 1, a.value ->> 2, sum((a.value ->> 3)::int)"
        " from outbox.stat_second cross join lateral jsonb_array_elements(attempts) as a"
        " group by 1, 2, 3 order by 2"
    ) == [("", "FAILED", "temporary", 1), ("", "RETRYING", "temporary", 2), ("", "SENT", "", 2)]
    assert (
        desk.value("select sum(h) from outbox.stat_second cross join lateral unnest(pickups) as h")
        == 5
    )


async def test_a_failed_attempt_waits_for_its_backoff_in_the_row(desk: Desk) -> None:
    job_id = desk.enqueue()
    handler = always(Retryable(code="busy", reason="x"))
    await drain(desk, {QUEUE: handler})
    assert desk.status(job_id) == "retrying"
    wait_s = desk.value(
        "select extract(epoch from next_attempt_at - finished_at)::float8 from outbox.delivery"
    )
    assert 4.0 <= wait_s <= 6.0


async def test_a_permanent_error_is_a_dead_letter_after_one_attempt(desk: Desk) -> None:
    job_id = desk.enqueue()
    await drain(desk, {QUEUE: always(Rejected(code="no", reason="never"))})
    assert desk.deliveries(job_id) == [("FAILED", 1, "no", False)]
    assert desk.value("select reason from outbox.dead_letter") == "permanent"


async def test_what_failed_or_is_held_is_logged_by_id_and_code_without_the_server_s_words(
    desk: Desk,
) -> None:
    async def deliver(message: Message) -> Outcome:
        if message.key == dead:
            return Rejected(code="gone", reason="no such user ann@example.com")
        return Misconfigured(code="login", reason="refused ann@example.com", scope="job")

    dead, held = desk.enqueue(), desk.enqueue()
    with capture_logs() as lines:
        await drain(desk, {QUEUE: Scripted(deliver)})
    told = {line["job_id"]: line for line in lines if "job_id" in line}
    assert (told[str(dead)]["event"], told[str(dead)]["log_level"]) == ("job failed", "error")
    assert (told[str(held)]["event"], told[str(held)]["log_level"]) == ("job held", "warning")
    assert [told[str(job)]["error_code"] for job in (dead, held)] == ["gone", "login"]
    assert "ann@" not in str(lines)


async def test_an_exception_of_a_handler_is_retryable_and_its_text_is_kept(desk: Desk) -> None:
    async def deliver(message: Message) -> Outcome:
        raise RuntimeError("boom \x00 \ud800")

    job_id = desk.enqueue()
    await drain(desk, {QUEUE: Scripted(deliver)})
    assert desk.deliveries(job_id) == [("RETRYING", 1, "handler.error", False)]
    assert "boom" in desk.value("select error_message from outbox.delivery")


async def test_secrets_are_masked_in_what_a_handler_lets_out(desk: Desk) -> None:
    async def deliver(message: Message) -> Outcome:
        raise RuntimeError("login with hunter2 failed")

    desk.enqueue()
    await drain(desk, {QUEUE: Scripted(deliver)}, secrets=("hunter2",))
    assert desk.value("select error_message from outbox.delivery") == (
        "RuntimeError: login with *** failed"
    )


async def test_a_delivery_that_hangs_is_cut_off_at_its_timeout(desk: Desk) -> None:
    async def deliver(message: Message) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    job_id = desk.enqueue(timeout_s=0.05)
    await drain(desk, {QUEUE: Scripted(deliver)})
    assert desk.deliveries(job_id) == [("RETRYING", 1, "delivery.timeout", False)]


async def test_a_job_is_not_delivered_before_send_after_by_the_database_s_clock(
    desk: Desk,
) -> None:
    # A dispatcher that is still starting up would be late.
    async with dispatching(desk, {QUEUE: Scripted()}):
        job_id = desk.enqueue(send_after=in_s(0.5))
        await desk.until_status(job_id, "sent")
    early_s = desk.value(
        "select extract(epoch from d.started_at - j.send_after)::float8"
        " from outbox.delivery as d join outbox.job as j using (id)"
    )
    assert 0 <= early_s < 1
    assert desk.history(job_id) == ["scheduled", "pending", "processing", "sent"]


async def test_a_job_that_arrives_expired_is_audited_and_never_attempted(desk: Desk) -> None:
    job_id = desk.enqueue(expires_at=in_s(-60))
    handler = Scripted()
    await drain(desk, {QUEUE: handler})
    assert handler.seen == []
    assert desk.deliveries(job_id) == [("EXPIRED", 0, "job.expired", False)]


async def test_no_attempt_starts_at_or_after_expires_at(desk: Desk) -> None:
    release = asyncio.Event()

    async def deliver(message: Message) -> Outcome:
        await release.wait()
        return Delivered()

    handler = Scripted(deliver)
    first = desk.enqueue()
    async with dispatching(desk, {QUEUE: handler}, concurrency={QUEUE: 1}):
        await handler.started.wait()
        # Claimed behind the first one, and prefetched; its time runs out in the queue.
        soon = desk.enqueue(expires_at=in_s(0.3), notify=True)
        await desk.until_status(soon, "processing", "expired")
        await asyncio.sleep(0.4)
        release.set()
        await desk.until_status(soon, "expired")
        await desk.until_status(first, "sent")
    assert handler.times_seen(soon) == 0


async def test_a_retry_that_would_come_too_late_ends_as_expired(desk: Desk) -> None:
    job_id = desk.enqueue(expires_at=in_s(2))
    await drain(desk, {QUEUE: always(Retryable(code="busy", reason="x", retry_after_s=60.0))})
    assert desk.status(job_id) == "expired"
    assert desk.deliveries(job_id) == [("EXPIRED", 1, "busy", False)]
    assert desk.value("select count(*) from outbox.dead_letter") == 0


async def test_a_snooze_gives_the_try_back_and_reads_scheduled(desk: Desk) -> None:
    job_id = desk.enqueue()
    until = datetime.now(UTC) + timedelta(hours=1)
    await drain(desk, {QUEUE: always(Snoozed(until=until, reason="quiet hours"))})
    assert desk.status(job_id) == "scheduled"
    assert desk.rows("select attempt, waits from outbox.entry") == [(0, 2)]
    assert desk.rows("select status, error_class from outbox.delivery") == [
        ("RETRYING", "snoozed")
    ]


async def test_concurrency_of_a_queue_is_a_bound(desk: Desk) -> None:
    release = asyncio.Event()

    async def deliver(message: Message) -> Outcome:
        await release.wait()
        return Delivered()

    handler = Scripted(deliver)
    jobs = [desk.enqueue() for _ in range(12)]
    async with dispatching(desk, {QUEUE: handler}, concurrency={QUEUE: 3}):
        await desk.until(lambda: handler.running == 3)
        release.set()
        for job_id in jobs:
            await desk.until_status(job_id, "sent")
    assert handler.running_max == 3


async def test_a_paused_lane_starts_nothing_once_the_dispatcher_has_seen_it(desk: Desk) -> None:
    handler = Scripted()
    first = desk.enqueue()
    async with dispatching(desk, {QUEUE: handler}):
        await desk.until_status(first, "sent")
        version = desk.value("select outbox.set_paused(%s, null, true, 'tester')", QUEUE)
        await desk.until(lambda: desk.value("select outbox.unseen_by(%s)", version) == 0)
        seen = len(handler.seen)
        waiting = [desk.enqueue(notify=True) for _ in range(5)]
        elsewhere = desk.enqueue(tenant="other", notify=True)
        await asyncio.sleep(0.3)
        assert len(handler.seen) == seen
        assert desk.status(elsewhere) == "pending"
        assert desk.value("select max(attempt) from outbox.entry") == 0
        desk.admin.execute("select outbox.set_paused(%s, null, false, 'tester')", (QUEUE,))
        for job_id in [*waiting, elsewhere]:
            await desk.until_status(job_id, "sent")


async def test_a_pause_waits_for_a_dispatcher_that_has_not_seen_it(desk: Desk) -> None:
    desk.enqueue()
    async with dispatching(desk, {QUEUE: Scripted()}):
        version = desk.value("select outbox.next_version()")
        assert desk.value("select outbox.unseen_by(%s)", version + 1) == 1


async def test_prefetched_jobs_are_handed_back_when_their_lane_is_paused(desk: Desk) -> None:
    release = asyncio.Event()

    async def deliver(message: Message) -> Outcome:
        await release.wait()
        return Delivered()

    handler = Scripted(deliver)
    for _ in range(4):
        desk.enqueue()
    async with dispatching(desk, {QUEUE: handler}, concurrency={QUEUE: 2}):
        await desk.until(
            lambda: (
                desk.value("select count(*) from outbox.entry where claimed_by is not null") == 4
            )
        )
        version = desk.value("select outbox.set_paused(%s, null, true, 'tester')", QUEUE)
        await desk.until(lambda: desk.value("select outbox.unseen_by(%s)", version) == 0)
        release.set()
        await desk.until(
            lambda: desk.rows("select claimed_by, attempt from outbox.entry") == [(None, 0)] * 2
        )
    assert len(handler.seen) == 2
    assert desk.value("select count(*) from outbox.delivery") == 2


async def test_a_configuration_error_holds_the_lane_and_a_probe_that_succeeds_opens_it(
    desk: Desk,
) -> None:
    mended = asyncio.Event()

    async def deliver(message: Message) -> Outcome:
        if mended.is_set():
            return Delivered()
        return Misconfigured(code="smtp.auth", reason="535 bad password")

    handler = Scripted(deliver)
    jobs = [desk.enqueue() for _ in range(30)]
    async with dispatching(desk, {QUEUE: handler}, concurrency={QUEUE: 2}, probe_s=0.2):
        await desk.until(
            lambda: desk.value("select exists (select from outbox.lane where held_at is not null)")
        )
        await desk.until(
            lambda: (
                desk.value("select count(*) from outbox.entry where claimed_by is not null") == 0
            )
        )
        assert len(handler.seen) <= 8
        await asyncio.sleep(0.3)
        assert desk.value("select sum(lease_no) from outbox.entry") <= 16, "claims do not churn"
        assert {desk.status(job_id) for job_id in jobs} == {"pending"}
        assert desk.value("select max(attempt) from outbox.entry") == 0
        assert {row[0] for row in desk.rows("select waiting_for from outbox.notification")} == {
            "lane held"
        }
        mended.set()
        for job_id in jobs:
            await desk.until_status(job_id, "sent")
    assert desk.value("select count(*) from outbox.dead_letter") == 0
    assert desk.value("select count(*) from outbox.lane where held_at is not null") == 0


async def test_a_narrower_hold_is_a_lane_of_its_own_and_holds_nobody_else(desk: Desk) -> None:
    async def deliver(message: Message) -> Outcome:
        if b"broken" in (message.payload_json or b""):
            return Misconfigured(
                code="endpoint.dead", reason="401", scope="endpoint", scope_key="e1"
            )
        return Delivered()

    broken = desk.enqueue(payload={"to": "broken"})
    fine = [desk.enqueue() for _ in range(5)]
    await drain(desk, {QUEUE: Scripted(deliver)})
    assert {desk.status(job_id) for job_id in fine} == {"sent"}
    assert desk.status(broken) == "pending"
    assert desk.rows("select scope, hold_code from outbox.lane where held_at is not null") == [
        ("endpoint:e1", "endpoint.dead")
    ]
    assert desk.lane(scope="endpoint:e1") == desk.value("select lane_id from outbox.entry")


async def test_suspects_of_a_crash_run_one_at_a_time(desk: Desk) -> None:
    async def deliver(message: Message) -> Outcome:
        await asyncio.sleep(0.02)
        return Delivered()

    handler = Scripted(deliver)
    jobs = [desk.enqueue() for _ in range(4)]
    desk.admin.execute("update outbox.entry set crashes = 1")
    async with dispatching(desk, {QUEUE: handler}, poll_s_max=0.05):
        for job_id in jobs:
            await desk.until_status(job_id, "sent")
    assert handler.running_max == 1


async def test_a_stopped_dispatcher_finishes_what_runs_and_hands_back_what_does_not(
    desk: Desk,
) -> None:
    release = asyncio.Event()

    async def deliver(message: Message) -> Outcome:
        await release.wait()
        return Delivered()

    handler = Scripted(deliver)
    jobs = [desk.enqueue() for _ in range(4)]
    async with dispatching(desk, {QUEUE: handler}, concurrency={QUEUE: 2}) as dispatcher:
        await desk.until(
            lambda: (
                handler.running == 2
                and desk.value("select count(*) from outbox.entry where claimed_by is not null")
                == 4
            )
        )
        dispatcher.stop()
        await desk.until(
            lambda: desk.value("select count(*) from outbox.entry where claimed_by is null") == 2
        )
        release.set()
    statuses = sorted(desk.status(job_id) for job_id in jobs)
    assert statuses == ["pending", "pending", "sent", "sent"]
    assert desk.rows("select attempt, crashes from outbox.entry") == [(0, 0)] * 2
    assert desk.value("select count(*) from outbox.dispatcher") == 0


async def test_what_outlives_the_grace_time_is_cut_off_and_burns_no_try(desk: Desk) -> None:
    async def deliver(message: Message) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    handler = Scripted(deliver)
    job_id = desk.enqueue()
    async with dispatching(desk, {QUEUE: handler}, drain_s=0.1):
        await handler.started.wait()
    assert desk.deliveries(job_id) == [("RETRYING", 1, "dispatcher.stopped", False)]
    assert desk.rows("select attempt, crashes, claimed_by from outbox.entry") == [(0, 0, None)]


async def test_a_cancelled_job_in_the_prefetch_is_not_delivered(desk: Desk) -> None:
    release = asyncio.Event()

    async def deliver(message: Message) -> Outcome:
        await release.wait()
        return Retryable(code="busy", reason="x", retry_after_s=0.0)

    handler = Scripted(deliver)
    job_id = desk.enqueue()
    async with dispatching(desk, {QUEUE: handler}):
        await handler.started.wait()
        (entry,) = desk.rows("select id from outbox.entry")
        desk.admin.execute("select outbox.cancel_jobs(array[%s::bigint], 'tester')", entry)
        release.set()
        await desk.until_status(job_id, "cancelled")
    assert handler.times_seen(job_id) == 1


async def test_a_replayed_job_starts_a_new_series_with_all_of_its_tries(desk: Desk) -> None:
    outcomes: list[Outcome] = [Rejected(code="no", reason="never"), Delivered()]

    async def deliver(message: Message) -> Outcome:
        return outcomes.pop(0)

    job_id = desk.enqueue()
    handler = Scripted(deliver)
    await drain(desk, {QUEUE: handler})
    (entry,) = desk.rows("select id from outbox.job")
    assert desk.value("select outbox.retry_job(%s, 'tester', 'replay')", *entry) == "retried"
    await drain(desk, {QUEUE: handler})
    assert desk.status(job_id) == "sent"
    assert desk.rows("select series, attempt, status from outbox.delivery order by lease_no") == [
        (1, 1, "FAILED"),
        (2, 1, "SENT"),
    ]
    assert desk.rows("select replayed_by, replayed_at is not null from outbox.dead_letter") == [
        ("tester", True)
    ]


async def test_a_bell_starts_a_job_well_before_the_poll_would(desk: Desk) -> None:
    desk.enqueue()
    handler = Scripted()
    async with dispatching(desk, {QUEUE: handler}, poll_s_min=5.0, poll_s_max=5.0):
        await desk.until(lambda: len(handler.seen) == 1)
        began = asyncio.get_running_loop().time()
        desk.enqueue(notify=True)
        await desk.until(lambda: len(handler.seen) == 2)
        assert asyncio.get_running_loop().time() - began < 2.0


async def test_a_job_whose_transaction_commits_late_is_found_below_the_floor(desk: Desk) -> None:
    handler = Scripted()
    with desk.database.admin_connect() as slow:
        from tests.engine.desk import enqueue_on

        late = enqueue_on(slow)
        async with dispatching(desk, {QUEUE: handler}):
            for _ in range(20):
                await desk.until_status(desk.enqueue(notify=True), "sent")
            slow.commit()
            await desk.until_status(late, "sent")


async def test_a_queue_of_somebody_else_s_is_left_alone(desk: Desk) -> None:
    desk.handle("foreign")
    foreign = desk.enqueue(queue="foreign", payload={})
    ours = desk.enqueue()
    await drain(desk, {QUEUE: Scripted()})
    assert desk.status(ours) == "sent"
    assert desk.status(foreign) == "pending"
    assert desk.value("select max(lease_no) from outbox.entry") == 0


@pytest.mark.parametrize("jobs", [300])
async def test_two_dispatchers_deliver_everything_exactly_once(desk: Desk, jobs: int) -> None:
    one, two = Scripted(), Scripted()
    ids = {desk.enqueue() for _ in range(jobs)}
    async with dispatching(desk, {QUEUE: one}), dispatching(desk, {QUEUE: two}):
        await desk.until(lambda: desk.value("select count(*) from outbox.entry") == 0)
    seen = [message.key for message in (*one.seen, *two.seen)]
    assert len(seen) == jobs
    assert set(seen) == ids
    assert desk.rows("select status, count(*) from outbox.delivery group by 1") == [("SENT", jobs)]


async def test_start_paused_delivers_nothing_until_resumed(desk: Desk) -> None:
    job_id = desk.enqueue()
    handler = Scripted()
    async with dispatching(desk, {QUEUE: handler}, start_paused=True):
        assert desk.value("select waiting_for from outbox.notification") == "lane paused"
        desk.admin.execute("select outbox.set_paused(%s, null, false, 'tester')", (QUEUE,))
        await desk.until_status(job_id, "sent")


async def test_queues_that_nothing_is_known_of_are_told_of(desk: Desk) -> None:
    with capture_logs() as logs:
        async with dispatching(desk, {QUEUE: Scripted()}, queues=frozenset({QUEUE, "wrok"})):
            pass
    told = [line["queues"] for line in logs if "names what has no handler" in line["event"]]
    assert told == [["wrok"]]

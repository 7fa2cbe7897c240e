"""Claim, record, rescue: the statements of the engine against a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from outbox.message import Epoch
from outbox.outcome import ChainedJob, InboxRow, SinkRow
from outbox.store import engine
from outbox.store.engine import Ask, Connection, Suppression, Version
from tests.engine.desk import (
    QUEUE,
    Desk,
    claim,
    connect,
    failed,
    in_s,
    register,
    retrying,
    sent,
)


@pytest.fixture
async def link(desk: Desk) -> AsyncIterator[Connection]:
    connection = await connect(desk.database)
    yield connection
    await connection.close()


@pytest.fixture
async def other(desk: Desk) -> AsyncIterator[Connection]:
    connection = await connect(desk.database)
    yield connection
    await connection.close()


A, B = Epoch(11), Epoch(22)


async def test_higher_priority_goes_first_and_equal_priority_by_due_time(
    desk: Desk, link: Connection
) -> None:
    wanted = []
    for priority in ("low", "normal", "high", "urgent"):
        for _ in range(2):
            wanted.append((priority, desk.enqueue(meta={"priority": priority})))
    rows = await claim(link, desk, epoch=A)
    order = {"urgent": 0, "high": 1, "normal": 2, "low": 3}
    assert [row.job_id for row in rows] == [
        job_id for _, job_id in sorted(wanted, key=lambda pair: order[pair[0]])
    ]


async def test_a_claim_takes_no_more_than_its_room_over_all_priorities(
    desk: Desk, link: Connection
) -> None:
    for priority in ("low", "normal", "high", "urgent"):
        for _ in range(3):
            desk.enqueue(meta={"priority": priority})
    rows = await claim(link, desk, epoch=A, room=7)
    assert [row.priority for row in rows] == [10, 10, 10, 5, 5, 5, 1]


async def test_two_dispatchers_never_hold_the_same_job(
    desk: Desk, link: Connection, other: Connection
) -> None:
    jobs = {desk.enqueue() for _ in range(200)}

    async def take_all(connection: Connection, epoch: Epoch) -> list[object]:
        taken: list[object] = []
        while rows := await claim(connection, desk, epoch=epoch, room=7):
            taken += [row.job_id for row in rows]
        return taken

    one, two = await asyncio.gather(take_all(link, A), take_all(other, B))
    assert len(one) + len(two) == 200
    assert set(one) | set(two) == jobs


async def test_nothing_is_claimed_before_send_after(desk: Desk, link: Connection) -> None:
    later = desk.enqueue(send_after=in_s(3600))
    assert await claim(link, desk, epoch=A) == []
    assert desk.status(later) == "scheduled"


async def test_a_claim_starts_behind_its_floor(desk: Desk, link: Connection) -> None:
    desk.enqueue()
    second = desk.enqueue()
    rows = await claim(link, desk, epoch=A, room=1)
    floor = (rows[0].available_at, rows[0].id)
    await engine.release_orphans(link, [], epoch=A)
    desk.admin.execute(
        "update outbox.entry set available_at = %s where id = %s",
        (rows[0].available_at, rows[0].id),
    )
    behind = await engine.claim(
        link, [Ask(lane_id=desk.lane(), room=5, normal=floor)], epoch=A, lease_s=60
    )
    assert [row.job_id for row in behind] == [second]


async def test_a_late_outcome_changes_no_row_once_the_lease_has_moved_on(
    desk: Desk, link: Connection, other: Connection
) -> None:
    job_id = desk.enqueue()
    (first,) = await claim(link, desk, epoch=A)
    await engine.rescue(other, dead=[A], epoch=B)
    (second,) = await claim(other, desk, epoch=B)
    before = desk.rows("select * from outbox.entry")

    unexpected = await engine.record(link, [sent(first)], [], [], epoch=A)

    assert [(u.late, u.repeated) for u in unexpected] == [(True, False)]
    assert desk.rows("select * from outbox.entry") == before
    assert desk.status(job_id) == "processing"
    await engine.record(other, [sent(second)], [], [], epoch=B)
    assert desk.deliveries(job_id) == [
        ("RETRYING", 1, "lease.lost", False),
        ("SENT", 1, None, True),
        ("SENT", 1, None, False),
    ]


async def test_a_zombie_of_an_older_series_cannot_end_the_new_one(
    desk: Desk, link: Connection
) -> None:
    job_id = desk.enqueue()
    (first,) = await claim(link, desk, epoch=A)
    await engine.record(link, [failed(first)], [], [], epoch=A)
    desk.admin.execute("select outbox.retry_job(%s, 'tester')", (first.id,))
    (second,) = await claim(link, desk, epoch=A)
    assert second.series == 2
    assert second.lease_no > first.lease_no

    await engine.record(link, [sent(first)], [], [], epoch=A)

    assert desk.status(job_id) == "processing"


async def test_recording_the_same_outcome_again_changes_nothing_at_all(
    desk: Desk, link: Connection
) -> None:
    desk.enqueue(user_id="u")
    (row,) = await claim(link, desk, epoch=A)
    effects = (
        InboxRow(user_id="u", subject=None, body="hello"),
        SinkRow(channel="email", recipient="u", subject=None, body="hello"),
        ChainedJob(job_json=f'{{"queue": "{QUEUE}", "payload": {{}}}}'),
        Suppression(channel="email", address="A@x.y", code="5.1.1", reason="gone"),
    )
    outcome = sent(row)
    assert await engine.record(link, [outcome], [], [(outcome, effects)], epoch=A) == []

    def everything() -> list[object]:
        return [
            desk.rows(f"select * from outbox.{table} order by 1, 2")
            for table in (
                "entry", "job", "delivery", "dead_letter", "inbox_message", "sink_message",
                "suppression", "stat_second",
            )
        ]  # fmt: skip

    before = everything()
    again = await engine.record(link, [outcome], [], [(outcome, effects)], epoch=A)
    assert [u.repeated for u in again] == [True]
    assert everything() == before
    assert desk.value("select count(*) from outbox.job") == 2
    assert desk.value("select address from outbox.suppression") == "a@x.y"


async def test_effects_run_only_where_the_lease_still_held(
    desk: Desk, link: Connection, other: Connection
) -> None:
    desk.enqueue(user_id="u")
    (row,) = await claim(link, desk, epoch=A)
    await engine.rescue(other, dead=[A], epoch=B)
    outcome = sent(row)
    effect = InboxRow(user_id="u", subject=None, body="hello")
    await engine.record(link, [outcome], [], [(outcome, (effect,))], epoch=A)
    assert desk.value("select count(*) from outbox.inbox_message") == 0


async def test_rescue_gives_the_try_back_and_the_third_crash_ends_the_job(
    desk: Desk, link: Connection
) -> None:
    job_id = desk.enqueue(max_attempts=5)
    for crash in (1, 2, 3):
        (row,) = await claim(link, desk, epoch=A)
        assert row.attempt == 1
        assert row.crashes == crash - 1
        await engine.rescue(link, dead=[A], epoch=B)
    assert desk.status(job_id) == "failed"
    assert desk.deliveries(job_id) == [
        ("RETRYING", 1, "lease.lost", False),
        ("RETRYING", 1, "lease.lost", False),
        ("FAILED", 1, "lease.lost", False),
    ]
    assert desk.rows("select reason, error_code from outbox.dead_letter") == [
        ("exhausted", "lease.lost")
    ]


async def test_an_expired_lease_is_rescued_though_its_dispatcher_lives(
    desk: Desk, link: Connection
) -> None:
    desk.enqueue()
    await claim(link, desk, epoch=A, lease_s=-1)
    assert len(await engine.rescue(link, dead=[], epoch=B)) == 1
    assert len(await claim(link, desk, epoch=B)) == 1


async def test_a_renewed_lease_is_left_alone(desk: Desk, link: Connection) -> None:
    desk.enqueue()
    (row,) = await claim(link, desk, epoch=A, lease_s=-1)
    assert await engine.renew(link, [(row.id, row.lease_no)], epoch=A, lease_s=60) == {row.id}
    assert await engine.rescue(link, dead=[], epoch=B) == []
    assert await engine.renew(link, [(row.id, row.lease_no)], epoch=B, lease_s=60) == set()


async def test_a_silent_dispatcher_without_its_lock_is_fenced_and_one_that_holds_it_is_not(
    desk: Desk, link: Connection, other: Connection
) -> None:
    await register(link, A)
    await register(other, B)
    desk.admin.execute(
        "update outbox.dispatcher set heartbeat_at = clock_timestamp() - interval '5 s'"
        " where epoch = %s",
        (A,),
    )
    beat = await engine.heartbeat(other, epoch=B, seen_version=Version(0))
    assert (beat.to_rescue, beat.alive_count) == ([], 2)
    await link.execute("select pg_advisory_unlock(%s)", (A,))
    beat = await engine.heartbeat(other, epoch=B, seen_version=Version(0))
    assert beat.to_rescue == [A]
    assert not (await engine.heartbeat(link, epoch=A, seen_version=Version(0))).alive
    await engine.mark_rescued(other, [A])
    beat = await engine.heartbeat(other, epoch=B, seen_version=Version(0))
    assert (beat.to_rescue, beat.alive_count) == ([], 1)


async def test_a_dispatcher_that_holds_its_lock_is_fenced_after_its_lease(
    desk: Desk, link: Connection, other: Connection
) -> None:
    await register(link, A, lease_s=10)
    await register(other, B)
    desk.admin.execute(
        "update outbox.dispatcher set heartbeat_at = clock_timestamp() - interval '11 s'"
        " where epoch = %s",
        (A,),
    )
    assert (await engine.heartbeat(other, epoch=B, seen_version=Version(0))).to_rescue == [A]


async def test_what_still_runs_is_adopted_by_the_next_epoch_and_the_rest_given_back(
    desk: Desk, link: Connection
) -> None:
    desk.enqueue()
    desk.enqueue()
    running, waiting = await claim(link, desk, epoch=A)
    assert await engine.adopt(link, [running.lease], old=A, new=B) == {running.lease}
    assert desk.rows("select id, claimed_by, attempt from outbox.entry order by id") == [
        (running.id, B, 1),
        (waiting.id, None, 0),
    ]


async def test_an_entry_that_was_rescued_meanwhile_is_not_adopted(
    desk: Desk, link: Connection
) -> None:
    desk.enqueue()
    (row,) = await claim(link, desk, epoch=A)
    await engine.rescue(link, dead=[A], epoch=Epoch(33))
    assert await engine.adopt(link, [row.lease], old=A, new=B) == set()


async def test_a_later_claim_of_an_entry_is_given_back_when_only_an_earlier_one_is_known(
    desk: Desk, link: Connection
) -> None:
    desk.enqueue()
    (first,) = await claim(link, desk, epoch=A)
    # The reply to this is lost, and so is the reply to the next claim.
    await engine.record(link, [retrying(first, in_s(-1))], [], [], epoch=A)
    (second,) = await claim(link, desk, epoch=A)
    assert second.lease_no == first.lease_no + 1
    assert await engine.adopt(link, [first.lease], old=A, new=B) == set()
    assert desk.rows("select claimed_by, attempt from outbox.entry") == [(None, 1)]
    assert [
        (u.late, u.repeated)
        for u in await engine.record(link, [retrying(first, in_s(-1))], [], [], epoch=B)
    ] == [(True, True)]


async def test_one_outcome_among_many_that_does_not_fit_is_the_only_one_late(
    desk: Desk, link: Connection
) -> None:
    for _ in range(5):
        desk.enqueue()
    rows = await claim(link, desk, epoch=A)
    desk.admin.execute(
        "update outbox.entry set lease_no = lease_no + 1 where id = %s", (rows[2].id,)
    )
    unexpected = await engine.record(link, [sent(row) for row in rows], [], [], epoch=A)
    assert [u.id for u in unexpected] == [rows[2].id]
    assert desk.value("select count(*) from outbox.entry") == 1


async def test_counts_come_from_what_was_stored_not_from_what_was_meant(
    desk: Desk, link: Connection
) -> None:
    for _ in range(3):
        desk.enqueue()
    one, two, three = await claim(link, desk, epoch=A)
    desk.admin.execute("update outbox.entry set claimed_by = 99 where id = %s", (three.id,))
    outcomes = [sent(one), retrying(two, in_s(60)), sent(three)]
    await engine.record(link, outcomes, [], [], epoch=A)
    assert desk.rows("select sum(sent), sum(retrying), sum(late) from outbox.stat_second") == [
        (1, 1, 1)
    ]


async def test_waiting_jobs_expire_also_in_a_paused_lane(desk: Desk, link: Connection) -> None:
    job_id = desk.enqueue(expires_at=in_s(3600))
    desk.admin.execute("select outbox.set_paused(%s, null, true, 'tester')", (QUEUE,))
    desk.admin.execute("update outbox.entry set expires_at = clock_timestamp()")
    assert (await engine.expire(link, epoch=A)).ended == 1
    assert desk.status(job_id) == "expired"
    assert desk.deliveries(job_id) == [("EXPIRED", 0, "job.expired", False)]


async def test_a_hold_ends_in_the_dead_letters(desk: Desk, link: Connection) -> None:
    job_id = desk.enqueue()
    lane = await engine.hold_lane(
        link,
        tenant_id="default",
        queue=QUEUE,
        scope="",
        code="smtp.auth",
        reason="535",
        probe_s=30,
    )
    assert await engine.expire_holds(link, epoch=A, hold_max_s=3600) == 0
    assert await engine.expire_holds(link, epoch=A, hold_max_s=-1) == 1
    assert lane == desk.lane()
    assert desk.status(job_id) == "failed"
    assert desk.rows("select reason, error_code from outbox.dead_letter") == [
        ("exhausted", "smtp.auth")
    ]


async def test_a_cancelled_waiting_job_is_gone_and_a_processing_one_ends_after_its_attempt(
    desk: Desk, link: Connection
) -> None:
    running = desk.enqueue()
    (row,) = await claim(link, desk, epoch=A)
    waiting = desk.enqueue()
    ids = [row[0] for row in desk.rows("select id from outbox.job order by id")]
    results = desk.rows("select result from outbox.cancel_jobs(%s, 'tester', 'stop')", ids)
    assert sorted(r[0] for r in results) == ["cancelled", "processing"]
    assert desk.status(waiting) == "cancelled"
    assert desk.status(running) == "processing"
    unexpected = await engine.record(link, [retrying(row, in_s(60))], [], [], epoch=A)
    assert [u.cancelled for u in unexpected] == [True]
    assert desk.status(running) == "cancelled"


async def test_a_cancelled_job_whose_attempt_succeeds_was_sent(
    desk: Desk, link: Connection
) -> None:
    job_id = desk.enqueue()
    (row,) = await claim(link, desk, epoch=A)
    desk.admin.execute("select outbox.cancel_jobs(array[%s::bigint], 'tester')", (row.id,))
    await engine.record(link, [sent(row)], [], [], epoch=A)
    assert desk.status(job_id) == "sent"


async def test_the_database_itself_refuses_a_second_end_of_a_series(
    desk: Desk, link: Connection
) -> None:
    desk.enqueue()
    (row,) = await claim(link, desk, epoch=A)
    await engine.record(link, [sent(row)], [], [], epoch=A)
    with pytest.raises(Exception, match=r"delivery_\d+_id_series_idx"):
        desk.admin.execute(
            "insert into outbox.delivery (id, finished_at, lease_no, series, attempt, terminal,"
            " status, tenant_id) values (%s, now(), 9, 1, 1, true, 'FAILED', 'default')",
            (row.id,),
        )


async def test_old_seconds_roll_up_into_quarters_hours_and_totals_without_losing_a_count(
    desk: Desk, link: Connection
) -> None:
    desk.enqueue()
    lane = desk.lane()
    for second in range(120):
        desk.admin.execute(
            "insert into outbox.stat_second"
            " (at, lane_id, sent, duration_ms_sum, durations, pickups, arrivals, pickup_ms_sum,"
            " attempts)"
            " values (now() - interval '1 hour' + make_interval(secs => %s), %s, 2, 10,"
            " array[1,1], array[0,2], array[2,0], 3,"
            ' \'[["smtp", "SENT", "", 2], ["smtp", "RETRYING", "temporary", 1]]\')',
            (second, lane),
        )
    await engine.roll_up(link, limit=70)
    await engine.roll_up(link, limit=70)
    assert desk.value("select count(*) from outbox.stat_second") == 0
    for table in ("stat_quarter", "stat_hour"):
        assert desk.rows(
            "select sum(sent)::int, sum(durations[2])::int, sum(pickups[2])::int,"
            f" sum(arrivals[1])::int from outbox.{table}"
        ) == [(240, 120, 240, 240)]
        assert desk.value(f"select count(*) from outbox.{table}") <= 2
    assert desk.rows(
        "select sent, duration_ms_sum, durations, pickups from outbox.stat_total"
    ) == [(240, 1200, [120, 120], [0, 240])]
    assert desk.value("select pickup_ms_sum from outbox.stat_total") == 360
    assert desk.rows(
        "select a.value ->> 0, a.value ->> 1, a.value ->> 2, sum((a.value ->> 3)::int)"
        " from outbox.stat_total cross join lateral jsonb_array_elements(attempts) as a"
        " group by 1, 2, 3 order by 2"
    ) == [("smtp", "RETRYING", "temporary", 120), ("smtp", "SENT", "", 240)]

"""Narrow lanes go once nothing waits in them, and nothing ever goes with them."""

from __future__ import annotations

from outbox.store import engine, retention
from tests.audit.hand import Hand
from tests.engine.desk import QUEUE, Desk, Scripted, dispatching, in_s
from tests.postgres import Database


def scopes(desk: Desk) -> list[str]:
    found = desk.rows("select scope from outbox.lane where queue = %s order by scope", QUEUE)
    return [row[0] for row in found]


def narrow(desk: Desk, scope: str) -> int:
    lane: int = desk.value("select outbox.scope_lane('default', %s, %s)", QUEUE, scope)
    return lane


async def test_idle_narrow_lanes_go_and_what_is_in_use_or_held_stays(
    desk: Desk, hand: Hand
) -> None:
    desk.enqueue()
    for scope in (
        "destination:host:a",
        "endpoint:1",
        "destination:host:b",
        "template:x",
        "job:1",
        "job:2",
    ):
        narrow(desk, scope)
    desk.admin.execute("update outbox.entry set lane_id = %s", (narrow(desk, "endpoint:1"),))
    desk.admin.execute(
        "update outbox.lane set held_at = clock_timestamp() - interval '2 hours'"
        " where scope in ('template:x', 'job:1')"
    )
    desk.admin.execute("update outbox.lane set held_at = clock_timestamp() where scope = 'job:2'")
    before = desk.value("select version from outbox.control")
    assert await retention.prune_lanes(hand.link) == 3
    assert scopes(desk) == ["", "endpoint:1", "job:2", "template:x"]
    # Dispatchers look at the lanes again.
    assert desk.value("select version from outbox.control") > before
    assert await retention.prune_lanes(hand.link) == 0


async def test_a_follower_of_an_ordering_key_keeps_its_lane(desk: Desk, hand: Hand) -> None:
    lane = narrow(desk, "endpoint:1")
    desk.enqueue()
    desk.admin.execute("update outbox.entry set lane_id = %s", (-lane,))
    assert await retention.prune_lanes(hand.link) == 0


async def test_what_was_counted_in_a_lane_that_goes_is_not_lost(desk: Desk, hand: Hand) -> None:
    desk.enqueue()
    await hand.deliver(await hand.claim_one())
    lane = narrow(desk, "destination:host:a")
    desk.admin.execute(
        "update outbox.stat_second set at = at - interval '1 hour', lane_id = %s", (lane,)
    )
    desk.admin.execute('update outbox.stat_second set attempts = \'[["smtp", "SENT", "", 7]]\'')
    assert await engine.roll_up(hand.link) == 1
    assert await retention.prune_lanes(hand.link) == 1
    assert await engine.roll_up(hand.link) == 1
    main = desk.lane()
    assert desk.rows("select lane_id, sent, attempts from outbox.stat_total") == [
        (main, 1, [["smtp", "SENT", "", 7]])
    ]
    for table in ("stat_quarter", "stat_hour"):
        assert desk.rows(f"select distinct lane_id from outbox.{table}") == [(main,)]


async def test_an_entry_that_moves_to_a_lane_that_is_gone_stays_where_it_is(
    desk: Desk, hand: Hand
) -> None:
    job_id = desk.enqueue()
    lane = narrow(desk, "destination:host:a")
    claimed = await hand.claim_one()
    assert await retention.prune_lanes(hand.link) == 1
    released = hand.ended(claimed, None, op="release", next_attempt=0, next_lane=lane)
    released.started_at = released.finished_at = released.duration_ms = None
    await hand.record(released)
    handler = Scripted()
    async with dispatching(desk, {QUEUE: handler}):
        await desk.until_status(job_id, "sent")


async def test_a_lane_that_somebody_is_moving_an_entry_to_is_left_alone(
    desk: Desk, hand: Hand, database: Database
) -> None:
    desk.enqueue()
    lane = narrow(desk, "destination:host:a")
    with database.admin_connect() as moving:
        # As record.sql does it, and not committed yet.
        moving.execute("select from outbox.lane where lane_id = %s for key share", (lane,))
        moving.execute("update outbox.entry set lane_id = %s", (lane,))
        assert await retention.prune_lanes(hand.link) == 0
    assert scopes(desk) == ["", "destination:host:a"]


async def test_a_dispatcher_that_knew_a_lane_goes_on_without_it(desk: Desk, hand: Hand) -> None:
    desk.admin.execute("select outbox.set_destination('provider:email', 20, 2, false, 'test')")
    handler = Scripted()

    async def send_some() -> None:
        jobs = [
            desk.enqueue(
                channel="email", to="ann@example.com", content="Hi", data={}, meta={},
                created_at=in_s(0), notify=True,
            )
            for _ in range(8)
        ]  # fmt: skip
        for job_id in jobs:
            await desk.until_status(job_id, "sent")

    async with dispatching(desk, {}, channels={"email": handler}) as dispatcher:
        await desk.until(lambda: bool(dispatcher.limits.destinations))
        await send_some()
        narrow_lane = desk.lane("email", scope="destination:provider:email")
        assert await retention.prune_lanes(hand.link) >= 1
        await desk.until(lambda: dispatcher.lanes.get(narrow_lane) is None)
        await send_some()
        # It waits in a lane made anew, and does not run round in circles.
        assert desk.lane("email", scope="destination:provider:email") > narrow_lane
        assert desk.value("select max(lease_no) from outbox.delivery") < 20
        newest = desk.value("select max(lane_id)::int from outbox.lane")
        await desk.until(lambda: dispatcher.lanes.newest == newest)

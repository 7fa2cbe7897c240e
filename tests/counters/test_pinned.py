"""What claims and polls cost while somebody holds a snapshot open, so that nothing is vacuumed.

A drain of DRAINED jobs leaves as many dead entries, twice over; what is counted is whether those
who come later walk over them. `outbox bench flat` does it with two million.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest

from outbox.message import Epoch
from outbox.store import engine
from outbox_dispatcher import floors
from outbox_dispatcher.claimer import Asked
from outbox_dispatcher.lanes import LaneBook, LaneState
from outbox_dispatcher.life import Life
from outbox_dispatcher.upkeep import BATCH as EXPIRED_AT_ONCE
from outbox_dispatcher.upkeep import Expiry
from tests.counters.watch import Watch, watching
from tests.engine.desk import QUEUE, Desk, register, sent

DRAINED = 10_000
BATCH = 250
SEED = """
with placed as materialized (
    select n, outbox.id_floor(now() - interval '1 hour') + n as id,
           outbox.lane_of('default', %(queue)s) as lane_id
    from generate_series(1, %(jobs)s) as n
), jobs as (
    insert into outbox.job (id, job_id, created_at, lane_id, priority, tenant_id, queue, job)
    select p.id, gen_random_uuid(), now(), p.lane_id, 1, 'default', %(queue)s, '{}'
    from placed as p
)
insert into outbox.entry (id, available_at, lane_id, priority)
select p.id, now() - interval '1 hour' + p.n * %(apart)s::interval, p.lane_id, 1
from placed as p
"""
PAGES_MAX = 60
"""Of a look that finds nothing: a few descents of an index, for each of four priorities."""


@dataclass
class Drain:
    """A drained lane, and what each of its claims has cost. `connection` counts on."""

    desk: Desk
    watch: Watch
    book: LaneBook
    state: LaneState
    epoch: Epoch
    pages: list[int]

    async def claim(self, *, below: bool = False) -> int:
        """Claim as a dispatcher does, deliver and record; return the pages of the claim."""
        asked: Asked = {self.state.lane.lane_id: (self.state, BATCH, below)}
        self.watch.take()
        rows = await engine.claim(
            self.watch.connection,
            [self.state.ask(BATCH, below=below)],
            epoch=self.epoch,
            lease_s=60,
        )
        pages = self.pages_since()
        self.book.claimed(asked, rows, 0.0)
        if rows:
            outcomes = [sent(row) for row in rows]
            await engine.record(self.watch.connection, outcomes, [], [], epoch=self.epoch)
            self.watch.take()
        return pages

    async def look_far(self) -> int:
        """Poll from the bottom; return the pages."""
        self.watch.take()
        upcoming = await engine.next_due(self.watch.connection)
        pages = self.pages_since()
        self.book.looked(upcoming, db_now=self.desk.value("select clock_timestamp()"))
        return pages

    async def look_near(self) -> tuple[int, bool]:
        """Poll from near the floors; return the pages, and whether it found something."""
        self.watch.take()
        upcoming = await engine.next_due_near(
            self.watch.connection, self.book.quiet_lanes({QUEUE})
        )
        self.book.found(upcoming)
        return self.pages_since(), bool(upcoming)

    def pages_since(self) -> int:
        return sum(seen.buffers for seen in self.watch.take())


@contextmanager
def holding_a_snapshot(desk: Desk) -> Iterator[None]:
    with desk.database.admin_connect() as holder:
        holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        holder.execute("select from outbox.entry limit 1")
        yield


@pytest.fixture(params=["0", "1 microsecond"], ids=["one due time", "due one after the other"])
async def drain(
    desk: Desk, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Drain]:
    """Drain a backlog, claim by claim, while somebody holds a snapshot open."""
    monkeypatch.setattr(floors, "NEAR_S", 0.0)  # the drain is over sooner than that
    desk.admin.execute("alter table outbox.entry set (autovacuum_enabled = false)")
    desk.admin.execute(SEED, {"queue": QUEUE, "jobs": DRAINED, "apart": request.param})
    desk.admin.execute("vacuum analyze outbox.entry, outbox.job")
    with holding_a_snapshot(desk):
        async with watching(desk.database, "outbox_dispatcher") as watch:
            epoch = await register(watch.connection, 7)
            book = LaneBook(None)
            version, _, lanes = await engine.load_lanes(watch.connection)
            book.load(version, lanes)
            state = book.get(desk.lane())
            assert state is not None
            drained = Drain(desk, watch, book, state, epoch, [])
            while state.hot:
                drained.pages.append(await drained.claim())
            assert len(drained.pages) == DRAINED // BATCH + 1
            assert desk.value("select count(*) from outbox.entry") == 0
            yield drained


async def test_the_last_claims_of_a_drain_cost_what_the_first_ones_did(drain: Drain) -> None:
    tenth = DRAINED // BATCH // 10
    first, last = sum(drain.pages[1 : tenth + 1]), sum(drain.pages[-tenth - 1 : -1])
    assert last <= 1.1 * first, drain.pages


async def test_whoever_looks_at_a_drained_lane_walks_over_it_once(drain: Drain) -> None:
    # The claim that finds nothing is as cheap as the far look is not.
    assert drain.pages[-1] <= PAGES_MAX
    assert await drain.look_far() > 4 * PAGES_MAX
    for _ in range(3):
        pages, found = await drain.look_near()
        assert not found
        assert pages <= PAGES_MAX
        assert await drain.claim(below=True) <= PAGES_MAX
        assert await drain.claim() <= PAGES_MAX


async def test_a_dispatcher_that_is_new_walks_over_what_others_have_drained_once(
    drain: Drain,
) -> None:
    drain.book.start_over()
    assert await drain.look_far() > 4 * PAGES_MAX
    drain.state.hot = False
    pages, found = await drain.look_near()
    assert not found
    assert pages <= PAGES_MAX
    assert await drain.claim() <= PAGES_MAX


async def test_what_is_new_is_found_near_and_what_lies_far_below_by_a_far_look(
    drain: Drain,
) -> None:
    drain.desk.enqueue()
    pages, found = await drain.look_near()
    assert found
    assert pages <= PAGES_MAX
    assert await drain.claim() <= 2 * PAGES_MAX
    assert drain.desk.value("select count(*) from outbox.entry") == 0
    drain.desk.enqueue()
    drain.desk.admin.execute("update outbox.entry set available_at = now() - interval '1 day'")
    assert (await drain.look_near())[1] is False
    await drain.claim(below=True)
    assert drain.desk.value("select count(*) from outbox.entry") == 1
    await drain.look_far()
    await drain.claim()
    assert drain.desk.value("select count(*) from outbox.entry") == 0


async def test_expiry_walks_over_what_it_has_ended_once(desk: Desk) -> None:
    batches = 8
    desk.admin.execute("alter table outbox.entry set (autovacuum_enabled = false)")
    desk.admin.execute(
        SEED, {"queue": QUEUE, "jobs": batches * EXPIRED_AT_ONCE, "apart": "1 microsecond"}
    )
    desk.admin.execute("update outbox.entry set expires_at = available_at + interval '1 minute'")
    desk.admin.execute("vacuum analyze outbox.entry, outbox.job")
    with holding_a_snapshot(desk):
        async with watching(desk.database, "outbox_dispatcher") as watch:
            expiry = Expiry(watch.connection, Life())
            pages = []
            more = True
            while more:
                watch.take()
                more = await expiry.step()
                pages.append(sum(seen.buffers for seen in watch.take()))
            assert desk.value("select count(*) from outbox.entry") == 0
            # The first one meets an empty partition of history; the last one finds nothing.
            assert pages[-2] <= 1.1 * pages[1], pages
            assert pages[-1] <= PAGES_MAX
            expiry.pace.may_at = float("inf")
            desk.enqueue()
            desk.admin.execute("update outbox.entry set expires_at = now()")
            watch.take()
            await expiry.step()
            assert sum(seen.buffers for seen in watch.take()) <= 2 * PAGES_MAX
            assert desk.value("select count(*) from outbox.entry") == 0
            # What was given back long after its time is found by a round from the bottom.
            desk.enqueue()
            desk.admin.execute("update outbox.entry set expires_at = now() - interval '1 day'")
            await expiry.step()
            assert desk.value("select count(*) from outbox.entry") == 1
            expiry.pace.may_at = 0.0
            await expiry.step()
            assert desk.value("select count(*) from outbox.entry") == 0

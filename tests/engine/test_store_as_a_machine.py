"""The store against a model of it: any order of claims, outcomes, rescues, cancels and retries.

The model knows a job's status, its series and the one lease that is live. Outcomes are recorded
under every lease that was ever given, live or not, and more than once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import TypeVar
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from outbox.message import EntryId, Epoch, LeaseNo
from outbox.store import engine
from outbox.store.engine import Claimed, Recorded
from tests.engine.desk import Desk, claim, connect, failed, in_s, retrying, sent

Result = TypeVar("Result")
EPOCHS = [Epoch(11), Epoch(22)]
ENDED = {"sent", "failed", "cancelled"}


@dataclass
class Model:
    """What a job should be. `lease`: the live one, with the epoch that holds it."""

    job_id: UUID
    status: str = "pending"
    series: int = 1
    attempt: int = 0
    crashes: int = 0
    lease: tuple[LeaseNo, Epoch] | None = None
    last_lease: int = 0
    cancel: bool = False
    ends: list[str] = field(default_factory=list)

    def end(self, status: str) -> None:
        self.status = status
        self.lease = None
        self.ends.append(status)


class StoreMachine(RuleBasedStateMachine):
    """Rules are what processes and people do; invariants are looked at after each."""

    desk: Desk

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.desk.admin.execute(
            "truncate outbox.job_key, outbox.job, outbox.entry, outbox.delivery,"
            " outbox.dead_letter, outbox.stat_second, outbox.operator_action"
        )
        self.link = self.wait(connect(self.desk.database))
        self.jobs: dict[EntryId, Model] = {}
        self.leases: list[Claimed] = []

    def wait(self, awaitable: Awaitable[Result]) -> Result:
        async def run() -> Result:
            return await awaitable

        return self.loop.run_until_complete(run())

    def teardown(self) -> None:
        self.wait(self.link.close())
        self.loop.close()

    @initialize()
    def begin_with_work(self) -> None:
        self.enqueue(2)

    @rule(count=st.integers(1, 2))
    def enqueue(self, count: int) -> None:
        for _ in range(count):
            job_id = self.desk.enqueue()
            entry = self.desk.value("select id from outbox.job where job_id = %s", job_id)
            self.jobs[EntryId(entry)] = Model(job_id)

    @rule(epoch=st.sampled_from(EPOCHS), room=st.integers(1, 3))
    def claim(self, epoch: Epoch, room: int) -> None:
        rows = self.wait(claim(self.link, self.desk, epoch=epoch, room=room))
        due = [job for job in self.jobs.values() if job.status == "pending"]
        assert len(rows) == min(room, len(due))
        for row in rows:
            job = self.jobs[row.id]
            assert job.status == "pending"
            assert row.lease_no > job.last_lease, "a lease number only ever grows"
            job.status, job.attempt = "processing", job.attempt + 1
            job.lease, job.last_lease = (row.lease_no, epoch), row.lease_no
            assert (row.series, row.attempt, row.crashes) == (job.series, job.attempt, job.crashes)
            self.leases.append(row)

    @rule(data=st.data(), kind=st.sampled_from(["sent", "failed", "retrying", "release"]))
    def record(self, data: st.DataObject, kind: str) -> None:
        if not self.leases:
            return
        lease = data.draw(st.sampled_from(self.leases))
        outcome = self._outcome(lease, kind)
        before = self.desk.value("select count(*) from outbox.delivery")
        (unexpected, twice) = (
            self.wait(engine.record(self.link, [outcome], [], [], epoch=lease.epoch))
            for _ in range(2)
        )
        job = self.jobs[lease.id]
        if job.lease != (lease.lease_no, lease.epoch):
            assert [u.late for u in unexpected] == [True]
            return
        assert [u.cancelled for u in unexpected] == ([True] if self._is_stopped(job, kind) else [])
        assert [u.late for u in twice] == [True]
        written = self.desk.value("select count(*) from outbox.delivery") - before
        assert written == (0 if kind == "release" and not job.cancel else 1)
        self._apply(job, kind)

    def _is_stopped(self, job: Model, kind: str) -> bool:
        return job.cancel and kind in ("retrying", "release")

    def _outcome(self, lease: Claimed, kind: str) -> Recorded:
        if kind == "sent":
            return sent(lease)
        if kind == "failed":
            return failed(lease)
        outcome = retrying(lease, in_s(3600))
        if kind == "release":
            outcome.op, outcome.next_at, outcome.waits = "release", None, None
            outcome.next_attempt = lease.attempt - 1
        return outcome

    def _apply(self, job: Model, kind: str) -> None:
        if self._is_stopped(job, kind):
            job.end("cancelled")
        elif kind in ("sent", "failed"):
            job.end(kind)
        elif kind == "retrying":
            job.status, job.lease, job.crashes = "retrying", None, 0
        else:
            job.status, job.lease, job.attempt = "pending", None, job.attempt - 1

    @rule(epoch=st.sampled_from(EPOCHS))
    def rescue(self, epoch: Epoch) -> None:
        self.wait(engine.rescue(self.link, dead=[epoch], epoch=Epoch(99)))
        for job in self.jobs.values():
            if job.lease is None or job.lease[1] != epoch:
                continue
            if job.cancel:
                job.end("cancelled")
            elif job.crashes == 2:
                job.end("failed")
            else:
                job.status, job.lease = "pending", None
                job.attempt, job.crashes = job.attempt - 1, job.crashes + 1
                job.last_lease += 1

    # One rule, so that people act less often than processes do.
    @rule(data=st.data(), kind=st.sampled_from(["cancel", "retry", "promote"]))
    def operate(self, data: st.DataObject, kind: str) -> None:
        entry = data.draw(st.sampled_from(sorted(self.jobs)))
        act = {"cancel": self._cancel, "retry": self._retry, "promote": self._promote}[kind]
        act(entry, self.jobs[entry])

    def _cancel(self, entry: EntryId, job: Model) -> None:
        result = self.desk.value(
            "select result from outbox.cancel_jobs(array[%s::bigint], 'tester')", entry
        )
        if job.status in ENDED:
            assert result == "ended"
        elif job.status == "processing":
            assert result == "processing"
            job.cancel = True
        else:
            assert result == "cancelled"
            job.last_lease += 1
            job.end("cancelled")

    def _retry(self, entry: EntryId, job: Model) -> None:
        result = self.desk.value("select outbox.retry_job(%s, 'tester')", entry)
        assert (result == "retried") == (job.status == "failed")
        if result == "retried":
            job.status, job.series, job.attempt = "pending", job.series + 1, 0
            job.crashes, job.cancel = 0, False

    def _promote(self, entry: EntryId, job: Model) -> None:
        result = self.desk.value("select outbox.promote_job(%s, 'tester')", entry)
        assert (result == "promoted") == (job.status == "retrying")
        if result == "promoted":
            job.status = "pending"

    @invariant()
    def every_status_is_the_model_s(self) -> None:
        found = dict(self.desk.rows("select id, status from outbox.notification"))
        assert found == {entry: job.status for entry, job in self.jobs.items()}

    @invariant()
    def every_series_that_ended_did_so_once(self) -> None:
        ended: dict[int, list[str]] = {}
        for entry, status in self.desk.rows(
            "select id, lower(status) from outbox.delivery"
            " where terminal and not late order by id, series"
        ):
            ended.setdefault(entry, []).append(status)
        assert ended == {entry: job.ends for entry, job in self.jobs.items() if job.ends}

    @invariant()
    def each_failed_series_has_one_dead_letter(self) -> None:
        letters = dict(self.desk.rows("select id, count(*) from outbox.dead_letter group by id"))
        assert letters == {
            entry: job.ends.count("failed")
            for entry, job in self.jobs.items()
            if "failed" in job.ends
        }

    @invariant()
    def an_entry_lives_exactly_as_long_as_its_job_waits_or_runs(self) -> None:
        live = {row[0] for row in self.desk.rows("select id from outbox.entry")}
        assert live == {entry for entry, job in self.jobs.items() if job.status not in ENDED}


def test_the_store_follows_its_model_in_any_order_of_events(desk: Desk) -> None:
    machine = type("Machine", (StoreMachine,), {"desk": desk})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )

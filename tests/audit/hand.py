"""A dispatcher's hand, worked step by step: claims and records in the store's own SQL."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from outbox.message import EntryId, Epoch, LaneId
from outbox.store import engine
from outbox.store.engine import Ask, Claimed, Connection, Recorded
from tests.engine.desk import QUEUE, Desk, connect, register


class Hand:
    """One epoch over one connection, in the dispatcher's role."""

    def __init__(self, desk: Desk, link: Connection, epoch: Epoch) -> None:
        self.desk = desk
        self.link = link
        self.epoch = epoch

    @classmethod
    async def of(cls, desk: Desk) -> Hand:
        link = await connect(desk.database)
        return cls(desk, link, await register(link, random.getrandbits(62)))

    def now(self) -> datetime:
        """The database's time."""
        now: datetime = self.desk.value("select clock_timestamp()")
        return now

    def in_s(self, seconds: float) -> datetime:
        return self.now() + timedelta(seconds=seconds)

    def id_of(self, job_id: UUID) -> EntryId:
        return EntryId(self.desk.value("select id from outbox.job where job_id = %s", job_id))

    async def claim(
        self, queue: str = QUEUE, tenant: str = "default", *, scope: str = "", room: int = 1000
    ) -> list[Claimed]:
        asks = [Ask(lane_id=self.desk.lane(queue, tenant, scope), room=room)]
        return await engine.claim(self.link, asks, epoch=self.epoch, lease_s=60.0)

    async def claim_one(self, queue: str = QUEUE, *, scope: str = "") -> Claimed:
        (claimed,) = await self.claim(queue, scope=scope)
        return claimed

    async def record(self, *outcomes: Recorded) -> None:
        await engine.record(self.link, outcomes, [], [], epoch=self.epoch)

    async def deliver(self, claimed: Claimed, **fields: Any) -> None:
        await self.record(self.ended(claimed, "SENT", **fields))

    async def fail(self, claimed: Claimed, code: str = "smtp.mailbox", **fields: Any) -> None:
        ended = self.ended(
            claimed,
            "FAILED",
            dead_reason="permanent",
            error_class="permanent",
            error_code=code,
            error_message=f"the receiver said {code}",
        )
        await self.record(_with(ended, fields))

    async def retry_at(
        self, claimed: Claimed, at: datetime, code: str = "http.503", **fields: Any
    ) -> None:
        again = self.again(
            claimed,
            next_at=at,
            next_attempt=claimed.attempt,
            waits=1,
            error_class="temporary",
            error_code=code,
            error_message=f"the receiver said {code}",
        )
        await self.record(_with(again, fields))

    async def snooze_until(self, claimed: Claimed, at: datetime) -> None:
        await self.record(
            self.again(
                claimed,
                next_at=at,
                next_attempt=claimed.attempt - 1,
                waits=2,
                error_class="snoozed",
                error_code="job.snoozed",
                error_message="quiet hours",
            )
        )

    async def hold(self, claimed: Claimed, *, scope: str = "") -> LaneId:
        lane = await engine.hold_lane(
            self.link,
            tenant_id=claimed.tenant_id,
            queue=claimed.queue,
            scope=scope,
            code="smtp.login",
            reason="535 who are you",
            probe_s=30.0,
        )
        now = self.now()
        await self.record(
            self.again(
                claimed,
                finished_at=now,
                next_at=now,
                next_lane=lane,
                next_attempt=claimed.attempt - 1,
                error_class="held",
                error_code="smtp.login",
                error_message="535 who are you",
            )
        )
        return lane

    async def release(self, claimed: Claimed) -> None:
        released = self.ended(claimed, None)
        released.op = "release"
        released.started_at = released.finished_at = released.duration_ms = None
        released.next_attempt = claimed.attempt - 1
        await self.record(released)

    async def die(self, claimed: Sequence[Claimed]) -> None:
        """Have another dispatcher take back what this one has claimed."""
        for one in claimed:
            self.desk.admin.execute(
                "update outbox.entry set lease_until = clock_timestamp() where id = %s", (one.id,)
            )
        await engine.rescue(self.link, dead=[], epoch=self.epoch)

    def ended(self, claimed: Claimed, status: str | None, **fields: Any) -> Recorded:
        return _with(
            Recorded(
                id=claimed.id,
                lease_no=claimed.lease_no,
                epoch=self.epoch,
                op="end",
                status=status,
                series=claimed.series,
                attempt=claimed.attempt,
                tenant_id=claimed.tenant_id,
                started_at=claimed.claimed_at,
                finished_at=self.now(),
                duration_ms=5,
            ),
            fields,
        )

    def again(self, claimed: Claimed, **fields: Any) -> Recorded:
        return _with(self.ended(claimed, "RETRYING"), {"op": "again"} | fields)

    def cancel(self, job_id: UUID, reason: str | None = None) -> str:
        result: str = self.desk.value(
            "select result from outbox.cancel_jobs(array[%s::bigint], 'ann', %s)",
            self.id_of(job_id),
            reason,
        )
        return result

    def retry(self, job_id: UUID, action: str = "retry", actor: str = "ann") -> str:
        result: str = self.desk.value(
            "select outbox.retry_job(%s, %s, %s)", self.id_of(job_id), actor, action
        )
        return result

    def promote(self, job_id: UUID) -> str:
        result: str = self.desk.value("select outbox.promote_job(%s, 'ann')", self.id_of(job_id))
        return result

    def let_time_come(self, job_id: UUID) -> None:
        """Move what the job waits, or waited, for to this very moment."""
        id_ = self.id_of(job_id)
        now = self.now()
        for statement in (
            "update outbox.entry set available_at = %(now)s"
            " where id = %(id)s and claimed_by is null and available_at > %(now)s",
            "update outbox.delivery set next_attempt_at = %(now)s"
            " where id = %(id)s and next_attempt_at > %(now)s",
            "update outbox.job set send_after = %(now)s"
            " where id = %(id)s and send_after > %(now)s",
        ):
            self.desk.admin.execute(statement, {"id": id_, "now": now})

    async def expire(self, job_id: UUID) -> None:
        """Let a waiting job's time run out."""
        self.desk.admin.execute(
            "update outbox.entry set expires_at = clock_timestamp() where id = %s",
            (self.id_of(job_id),),
        )
        await engine.expire(self.link, epoch=self.epoch)


def _with(recorded: Recorded, fields: dict[str, Any]) -> Recorded:
    for name, value in fields.items():
        setattr(recorded, name, value)
    return recorded

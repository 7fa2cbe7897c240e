"""A workplace for engine tests: one database, its statements, and dispatchers that run in it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypeAlias
from uuid import UUID, uuid4

import psycopg

from outbox.channels import Handler
from outbox.message import Epoch, LaneId, Message
from outbox.outcome import Delivered, Outcome
from outbox.store import engine
from outbox.store.engine import Ask, Claimed, Connection, Recorded
from outbox_dispatcher.service import Dispatcher
from outbox_dispatcher.settings import DispatcherSettings
from tests.postgres import Database

QUEUE = "work"
DEADLINE_S = 60.0

Deliver: TypeAlias = Callable[[Message], Awaitable[Outcome]]


class Scripted:
    """A handler whose deliveries a test writes; it remembers each message that it got."""

    def __init__(self, deliver: Deliver | None = None) -> None:
        self._deliver = deliver
        self.seen: list[Message] = []
        self.running = 0
        self.running_max = 0
        self.started = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        self.seen.append(message)
        self.started.set()
        self.running += 1
        self.running_max = max(self.running_max, self.running)
        try:
            return Delivered() if self._deliver is None else await self._deliver(message)
        finally:
            self.running -= 1

    def times_seen(self, job_id: UUID) -> int:
        return sum(1 for message in self.seen if message.key == job_id)


class Desk:
    """Statements against one database, as the superuser where a test looks behind the scenes."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.admin = database.admin_connect(autocommit=True)
        self.handle(QUEUE)

    def close(self) -> None:
        self.admin.close()

    def handle(self, queue: str) -> None:
        self.admin.execute(
            "insert into outbox.handler (kind, name) values ('queue', %s) on conflict do nothing",
            (queue,),
        )

    def enqueue(self, *, tenant: str = "default", notify: bool = False, **fields: object) -> UUID:
        return enqueue_on(self.admin, tenant=tenant, notify=notify, **fields)

    def rows(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.admin.execute(statement.encode(), parameters).fetchall()

    def value(self, statement: str, *parameters: object) -> Any:
        (row,) = self.rows(statement, *parameters)
        return row[0]

    def status(self, job_id: UUID) -> str:
        status: str = self.value(
            "select status from outbox.notification where job_id = %s", job_id
        )
        return status

    def deliveries(self, job_id: UUID) -> list[tuple[str, int, str | None, bool]]:
        """Return (status, attempt, error code, late) of each row of history, by lease."""
        return [
            (row[0], row[1], row[2], row[3])
            for row in self.rows(
                "select status, attempt, error_code, late from outbox.notification_delivery"
                " where job_id = %s order by series, lease_no, late",
                job_id,
            )
        ]

    def history(self, job_id: UUID) -> list[str]:
        return [
            row[0]
            for row in self.rows(
                "select status from outbox.notification_history where job_id = %s"
                " order by series, at, step",
                job_id,
            )
        ]

    def lane(self, queue: str = QUEUE, tenant: str = "default", scope: str = "") -> LaneId:
        return LaneId(
            self.value(
                "select lane_id from outbox.lane"
                " where queue = %s and tenant_id = %s and scope = %s",
                queue,
                tenant,
                scope,
            )
        )

    def limit(
        self,
        *,
        tenant: str = "default",
        queue: str = QUEUE,
        weight: int = 1,
        concurrency_max: int | None = None,
        rate_per_s: float | None = None,
        burst: int | None = None,
    ) -> None:
        self.admin.execute(
            "select outbox.set_lane_limits(%s, %s, %s, %s, %s, %s, 'test')",
            (tenant, queue, weight, concurrency_max, rate_per_s, burst),
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds; the deadline is for a test that fails."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_status(self, job_id: UUID, *wanted: str) -> None:
        await self.until(lambda: self.status(job_id) in wanted)


def enqueue_on(
    connection: psycopg.Connection[Any],
    *,
    tenant: str = "default",
    notify: bool = False,
    **fields: object,
) -> UUID:
    job: dict[str, object] = {"job_id": str(uuid4())}
    if "channel" not in fields:
        job |= {"queue": QUEUE, "payload": {}}
    job |= {name: _plain(value) for name, value in fields.items()}
    row = connection.execute(
        "select job_id from outbox.enqueue(%s::jsonb, %s, %s)", (json.dumps(job), tenant, notify)
    ).fetchone()
    assert row is not None
    found: UUID = row[0]
    return found


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return str(value) if isinstance(value, UUID) else value


def in_s(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def connect(database: Database) -> Connection:
    """Connect as a dispatcher does: the service's login, in the dispatcher's role."""
    connection = await psycopg.AsyncConnection.connect(database.url, autocommit=True)
    await connection.execute("set role outbox_dispatcher")
    return connection


async def register(connection: Connection, epoch: int, *, lease_s: float = 60.0) -> Epoch:
    await engine.register(
        connection,
        epoch=Epoch(epoch),
        name="test",
        version="0",
        pid=1,
        queues=None,
        lease_s=lease_s,
    )
    return Epoch(epoch)


async def claim(
    connection: Connection, desk: Desk, *, epoch: Epoch, room: int = 10, lease_s: float = 60.0
) -> list[Claimed]:
    asks = [Ask(lane_id=desk.lane(), room=room)]
    return await engine.claim(connection, asks, epoch=epoch, lease_s=lease_s)


def sent(claimed: Claimed) -> Recorded:
    return Recorded(
        id=claimed.id,
        lease_no=claimed.lease_no,
        epoch=claimed.epoch,
        op="end",
        status="SENT",
        series=claimed.series,
        attempt=claimed.attempt,
        tenant_id=claimed.tenant_id,
        started_at=claimed.claimed_at,
        finished_at=claimed.claimed_at,
    )


def retrying(claimed: Claimed, at: datetime) -> Recorded:
    outcome = sent(claimed)
    outcome.op = "again"
    outcome.status = "RETRYING"
    outcome.next_at = at
    outcome.next_attempt = claimed.attempt
    outcome.waits = 1
    outcome.error_class = "temporary"
    outcome.error_code = "test.retry"
    return outcome


def failed(claimed: Claimed) -> Recorded:
    outcome = sent(claimed)
    outcome.status = "FAILED"
    outcome.dead_reason = "permanent"
    outcome.error_class = "permanent"
    outcome.error_code = "test.failed"
    return outcome


@asynccontextmanager
async def dispatching(
    desk: Desk,
    handlers: Mapping[str, Handler],
    *,
    channels: Mapping[str, Handler] | None = None,
    **settings: Any,
) -> AsyncIterator[Dispatcher]:
    """Run a dispatcher in this event loop until the block ends."""
    chosen = DispatcherSettings(
        database_url=desk.database.url, **{"drain_s": 5.0, "poll_s_max": 0.1} | settings
    )
    dispatcher = Dispatcher(chosen, channels=channels or {}, queues=handlers)
    task = asyncio.create_task(dispatcher.run())
    ready = asyncio.create_task(dispatcher.ready.wait())
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE_S)
        if task.done():
            task.result()
        assert dispatcher.ready.is_set()
        yield dispatcher
    finally:
        ready.cancel()
        dispatcher.stop()
        await asyncio.wait_for(task, DEADLINE_S)


async def drain(desk: Desk, handlers: Mapping[str, Handler], **settings: Any) -> None:
    """Run a dispatcher until nothing is due."""
    chosen = DispatcherSettings(database_url=desk.database.url, **settings)
    dispatcher = Dispatcher(chosen, channels={}, queues=handlers)
    await asyncio.wait_for(dispatcher.run(drain=True), DEADLINE_S)

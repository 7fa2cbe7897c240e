"""Destinations that the whole fleet shares: a pause that was asked for, a breaker, a rate."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from uuid import UUID

from aiohttp import web

from outbox.channels.registry import load_handlers
from outbox_dispatcher.service import Dispatcher
from tests.channels.hook_server import hook_server
from tests.engine.desk import Desk, dispatching


@dataclass
class Receiver:
    """A real receiver, which notes when it was called and answers as it is told."""

    answer: Callable[[int], web.Response]
    port: int = 0
    called_at: list[float] = field(default_factory=list)
    first_refusal: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        await request.read()
        self.called_at.append(monotonic())
        answer = self.answer(len(self.called_at))
        if answer.status != 200:
            self.first_refusal.set()
        return answer

    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def name(self) -> str:
        return f"host:127.0.0.1:{self.port}"


@asynccontextmanager
async def receiving(answer: Callable[[int], web.Response]) -> AsyncIterator[Receiver]:
    receiver = Receiver(answer)
    runner = web.ServerRunner(web.Server(receiver.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.port = runner.addresses[0][1]
    try:
        yield receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def fleet(desk: Desk, size: int, **settings: object) -> AsyncIterator[list[Dispatcher]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                dispatching(
                    desk, {}, channels=load_handlers({"WEBHOOK_ALLOW": "0.0.0.0/0"}), **settings
                )
            )
            for _ in range(size)
        ]


def hooks(desk: Desk, url: str, count: int) -> list[UUID]:
    job: dict[str, Any] = {"channel": "webhook", "to": url, "data": {}, "meta": {}}
    job["created_at"] = "2026-11-22T12:00:00Z"
    return [desk.enqueue(notify=True, **job) for _ in range(count)]


def all_sent(desk: Desk) -> bool:
    return desk.rows("select from outbox.entry limit 1") == []


def sent(desk: Desk) -> int:
    count: int = desk.value("select count(*) from outbox.delivery where status = 'SENT'")
    return count


async def test_three_dispatchers_keep_to_the_pause_that_one_of_them_was_asked_for(
    desk: Desk,
) -> None:
    pause_s = 3
    paused_at: list[float] = []

    def answer(number: int) -> web.Response:
        if number > 20 and not paused_at:
            paused_at.append(monotonic())
        if paused_at and monotonic() < paused_at[0] + pause_s - 0.05:
            return web.Response(status=429, headers={"Retry-After": str(pause_s)})
        return web.Response()

    async with receiving(answer) as receiver, fleet(desk, 3) as dispatchers:
        hooks(desk, receiver.url(), 300)
        async with asyncio.timeout(30):
            await receiver.first_refusal.wait()
        await desk.until(lambda: all(d.gates.shut for d in dispatchers))
        told_at = monotonic()
        await desk.until(lambda: all_sent(desk))
    refused = [
        at for at in receiver.called_at if paused_at[0] <= at < paused_at[0] + pause_s - 0.1
    ]
    # Only what was on its way already when each of them was told; nothing that was prepared.
    assert len(refused) <= 3 * 10
    assert [at for at in refused if at > told_at + 0.1] == []
    assert sent(desk) == 300
    # The tries that were burned are those that the receiver has seen.
    assert desk.value("select count(*) from outbox.delivery") == len(receiver.called_at)
    assert desk.value("select count(*) from outbox.delivery where status = 'FAILED'") == 0


async def test_a_dispatcher_that_was_never_refused_keeps_to_the_pause_that_another_was_asked_for(
    desk: Desk,
) -> None:
    def refuse(_: int) -> web.Response:
        return web.Response(status=429, headers={"Retry-After": "600"})

    async with receiving(refuse) as receiver:
        async with fleet(desk, 1):
            hooks(desk, receiver.url(), 1)
            await desk.until(
                lambda: (
                    desk.rows("select from outbox.destination where paused_until > now()") != []
                )
            )
        async with fleet(desk, 1) as (other,):
            hooks(desk, receiver.url(), 5)
            await desk.until(lambda: other.gates.held_back_total == 5)
        assert len(receiver.called_at) == 1


async def test_what_comes_after_a_pause_was_asked_for_waits_in_a_lane_of_its_own_and_moves_once(
    desk: Desk,
) -> None:
    async with AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(receiving(lambda _: web.Response()))
        other = await stack.enter_async_context(hook_server())
        desk.admin.execute("select outbox.pause_destination(%s, 3600)", (receiver.name,))
        (dispatcher,) = await stack.enter_async_context(fleet(desk, 1))
        jobs = hooks(desk, receiver.url(), 40)
        await desk.until(
            lambda: (
                desk.value(
                    "select count(*) from outbox.entry as e join outbox.lane as l using (lane_id)"
                    " where l.scope = %s and e.claimed_by is null",
                    f"destination:{receiver.name}",
                )
                == 40
            )
        )
        held_back = dispatcher.gates.held_back_total
        # The tenant's other webhooks pass: another port is another destination.
        (passes,) = hooks(desk, f"http://127.0.0.1:{other.port}/", 1)
        await desk.until_status(passes, "sent")
        assert receiver.called_at == []
        assert dispatcher.gates.held_back_total == held_back == 40
        assert desk.value("select max(attempt) from outbox.entry") == 0
        row = desk.rows(
            "select status, waiting_for from outbox.notification where job_id = %s", jobs[0]
        )
        assert row == [("pending", "destination")]
        desk.admin.execute(
            "select outbox.set_destination(%s, null, null, true, 'test')", (receiver.name,)
        )
        await desk.until(lambda: all_sent(desk))
    assert len(receiver.called_at) == 40
    assert desk.value("select count(*) from outbox.destination") == 0


async def test_the_breaker_opens_burns_no_tries_and_closes_when_one_probe_was_answered(
    desk: Desk,
) -> None:
    broken = True

    def answer(_: int) -> web.Response:
        return web.Response(status=500 if broken else 200)

    async with receiving(answer) as receiver, fleet(desk, 3):
        hooks(desk, receiver.url(), 200)
        opened = "select count(*) from outbox.destination where open_until is not null"
        await desk.until(lambda: desk.value(opened) == 1)
        await desk.until(lambda: desk.value("select sum(attempt) from outbox.entry") is not None)

        def waiting() -> int:
            count: int = desk.value(
                "select count(*) from outbox.entry as e join outbox.lane as l using (lane_id)"
                " where l.scope = %s and e.claimed_by is null",
                f"destination:{receiver.name}",
            )
            return count

        await desk.until(lambda: waiting() >= 1)
        await desk.until(
            lambda: (
                not desk.value("select count(*) from outbox.entry where claimed_by is not null")
            )
        )
        seen = len(receiver.called_at)
        assert 20 <= seen < 200
        assert desk.value("select count(*) from outbox.delivery") == seen
        # Half open: one probe over the fleet, which fails, and twice as long again.
        reopen = (
            "update outbox.destination set open_until = clock_timestamp();"
            "select outbox.destinations_changed()"
        )
        desk.admin.execute(reopen)
        await desk.until(lambda: desk.value("select max(open_s) from outbox.destination") == 60)
        assert len(receiver.called_at) == seen + 1
        broken = False
        desk.admin.execute(reopen)
        await desk.until(lambda: desk.value(opened) == 0)
        desk.admin.execute(
            "update outbox.entry set available_at = clock_timestamp() where claimed_by is null"
        )
        await desk.until(lambda: all_sent(desk))
    assert sent(desk) == 200


async def test_a_destination_s_rate_holds_over_the_whole_fleet(desk: Desk) -> None:
    async with receiving(lambda _: web.Response()) as receiver:
        desk.admin.execute(
            "select outbox.set_destination(%s, 20, 5, false, 'test')", (receiver.name,)
        )
        async with fleet(desk, 3):
            hooks(desk, receiver.url(), 60)
            await desk.until(lambda: all_sent(desk))
    called = receiver.called_at
    assert len(called) == 60
    # 5 at once and 20 a second: the last comes no sooner than (60 - 5) / 20 s after the first,
    # but for what a dispatcher had for the moment.
    assert called[-1] - called[0] >= (60 - 5) / 20 - 0.3


async def test_a_dead_host_does_not_slow_the_others_of_its_queue(desk: Desk) -> None:
    async with (
        receiving(lambda _: web.Response(status=503)) as dead,
        receiving(lambda _: web.Response()) as alive,
        fleet(desk, 1),
    ):
        hooks(desk, dead.url(), 300)
        good = hooks(desk, f"http://localhost:{alive.port}/", 50)
        await desk.until(lambda: all(desk.status(job) == "sent" for job in good))
        assert len(dead.called_at) < 150

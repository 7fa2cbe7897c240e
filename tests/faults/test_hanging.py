"""A database that says nothing any more: sessions end, and whoever is told to end does so."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from outbox.errors import StoreUnavailable
from outbox.store import pool
from outbox.store.pool import Connection
from outbox_dispatcher.health import STUCK_S, serve_health
from outbox_dispatcher.life import SELF_FENCE_S
from outbox_dispatcher.service import Dispatcher
from outbox_dispatcher.settings import DispatcherSettings
from tests.api.conftest import free_port
from tests.engine.desk import QUEUE, Desk, Scripted
from tests.faults.proxy import Proxy, proxied

ENDS_S_MAX = 20.0


async def started(proxy: Proxy) -> tuple[Dispatcher, asyncio.Task[None]]:
    """Run a dispatcher behind the proxy."""
    settings = DispatcherSettings(database_url=proxy.url, drain_s=1.0)
    dispatcher = Dispatcher(settings, channels={}, queues={QUEUE: Scripted()})
    task = asyncio.create_task(dispatcher.run())
    await asyncio.wait_for(dispatcher.ready.wait(), ENDS_S_MAX)
    return dispatcher, task


async def test_a_dispatcher_can_be_cancelled_while_it_loses_a_database_that_hangs(
    desk: Desk,
) -> None:
    async with proxied(desk.database.url) as proxy:
        dispatcher, task = await started(proxy)
        proxy.mute()
        await desk.until(lambda: not dispatcher.life.may_start())
        # One connection ends, so that the session does; the others wait for answers.
        desk.admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where application_name = 'outbox dispatcher bell'"
            " and datname = current_database()"
        )
        await asyncio.sleep(0.2)
        task.cancel()
        await asyncio.wait({task}, timeout=ENDS_S_MAX)
        assert task.cancelled()


async def test_a_dispatcher_leaves_in_time_though_the_database_hangs(desk: Desk) -> None:
    async with proxied(desk.database.url) as proxy:
        dispatcher, task = await started(proxy)
        proxy.mute()
        dispatcher.stop()
        await asyncio.wait_for(task, ENDS_S_MAX)


async def test_a_dispatcher_goes_on_once_a_database_that_hung_answers_again(desk: Desk) -> None:
    async with proxied(desk.database.url) as proxy:
        dispatcher, task = await started(proxy)
        epoch = dispatcher.life.epoch
        proxy.mute()
        job_id = desk.enqueue()
        # Without a connection that ends, or anybody who tells: by the silence alone.
        await desk.until(lambda: dispatcher.life.fenced)
        proxy.muted = False
        await desk.until_status(job_id, "sent")
        assert dispatcher.life.epoch != epoch
        dispatcher.stop()
        await asyncio.wait_for(task, ENDS_S_MAX)


async def test_a_dispatcher_lives_while_its_heartbeats_go_on_answered_or_not(desk: Desk) -> None:
    async with proxied(desk.database.url) as proxy:
        dispatcher, task = await started(proxy)
        port = free_port()
        async with (
            serve_health(dispatcher, "127.0.0.1", port),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
        ):
            proxy.mute()
            await asyncio.sleep(SELF_FENCE_S + 0.1)
            assert (await client.get("/health/ready")).status_code == 503
            assert (await client.get("/health/live")).status_code == 200
            dispatcher.life.turned_at -= STUCK_S
            stuck = await client.get("/health/live")
            assert (stuck.status_code, stuck.json()["status"]) == (503, "stuck")
        proxy.cut()
        dispatcher.stop()
        await asyncio.wait_for(task, ENDS_S_MAX)


async def test_of_a_database_that_hangs_one_connection_is_waited_for_not_each(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut: list[object] = []
    really_cut = pool._cut

    def counted(connection: Connection) -> None:
        cut.append(connection)
        really_cut(connection)

    monkeypatch.setattr(pool, "BEGIN_S_MAX", 0.3)
    # Longer than the others would take: nobody may try them meanwhile.
    monkeypatch.setattr(pool, "DOWN_PAUSE_S", 60.0)
    monkeypatch.setattr(pool, "_cut", counted)
    async with proxied(desk.database.url) as proxy, pool.Database(proxy.url) as database:
        async with (
            database.transaction(pool.EVERY_TENANT),
            database.transaction(pool.EVERY_TENANT),
            database.transaction(pool.EVERY_TENANT),
        ):
            pass
        proxy.mute()
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                async with database.transaction(pool.EVERY_TENANT):
                    pass
    assert len(cut) == 1

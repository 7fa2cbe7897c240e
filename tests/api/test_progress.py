"""How far a long attempt has come: what its handler says, and who gets to see it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import aiohttp
import pytest

from outbox.channels import Progress, no_progress, takes_progress
from outbox.message import EntryId, Message
from outbox.outcome import Delivered, Outcome
from outbox.store import engine, retention
from outbox.store.engine import Connection, ProgressReport
from outbox_cli.jobs import show as show_command
from outbox_dispatcher import progress as book
from tests.api.conftest import ADMIN_KEY, Api, running_api
from tests.api.test_stream import SOON_S, reading
from tests.audit.hand import Hand
from tests.engine.desk import QUEUE, Desk, Scripted, claim, connect, dispatching, drain, register

ROWS = "select count(*) from outbox.progress"


class Long:
    """A handler that says what a test tells it to, and ends when it is told to."""

    def __init__(self) -> None:
        self.to_say: asyncio.Queue[tuple[float, float, str] | None] = asyncio.Queue()
        self.progress: Progress = no_progress

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    async def deliver(
        self, message: Message, *, timeout_s: float, progress: Progress = no_progress
    ) -> Outcome:
        self.progress = progress
        while (said := await self.to_say.get()) is not None:
            await asyncio.to_thread(progress, *said)  # as a handler does that computes
        return Delivered()

    def say(self, done: float, total: float = 1.0, text: str = "") -> None:
        self.to_say.put_nowait((done, total, text))

    def end(self) -> None:
        self.to_say.put_nowait(None)


async def shown(api: Api, job_id: object) -> Any:
    return (await api.client.get(f"/api/v1/jobs/{job_id}")).json()["progress"]


async def until_shown(api: Api, job_id: object, fraction: float | None) -> Any:
    async with asyncio.timeout(SOON_S):
        while True:
            found = await shown(api, job_id)
            if (found and found["fraction"]) == fraction:
                return found
            await asyncio.sleep(0.02)


async def test_what_a_handler_says_of_its_progress_is_shown_while_it_runs(
    api: Api, desk: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(book, "EVERY_S", 0.05)
    handler = Long()
    async with dispatching(desk, {QUEUE: handler}), reading(api.client) as stream:
        await stream.started()
        before = stream.last_id
        job = desk.enqueue(notify=True)
        handler.say(3, 12, "page 3")
        told = await until_shown(api, job, 0.25)
        assert (told["done"], told["total"], told["text"]) == (3, 12, "page 3")
        # In words, in the stream, and on the terminal.
        explained = (await api.client.get(f"/api/v1/jobs/{job}/explain")).json()
        assert explained["progress"]["fraction"] == 0.25
        assert "It has come to 25 %: page 3." in explained["explanation"]
        assert (await stream.next()).what == ("enqueued", str(job))
        event = await stream.next()
        assert event.what == ("progress", str(job))
        assert event.data["progress"] | {"at": None} == told | {"at": None}
        assert event.data["attempt"] == 1
        monkeypatch.setenv("OUTBOX_DATABASE_URL", api.database.url)
        await asyncio.to_thread(show_command, job, None, False)
        assert "25 % (3 of 12): page 3, at " in capsys.readouterr().out
        # More than all of it is all of it; a new report stands in the place of the old one.
        handler.say(13, 12)
        assert (await until_shown(api, job, 1.0))["text"] is None
        assert (await stream.next()).data["progress"]["fraction"] == 1.0
        handler.end()
        assert (await stream.next()).what == ("completed", str(job))
        assert await shown(api, job) is None
        await desk.until(lambda: desk.value(ROWS) == 0)
        # A thread that goes on after the end says nothing more, nor has history anything of it.
        handler.progress(0.5)
    async with reading(api.client, before) as again:
        assert (await again.next()).what == ("enqueued", str(job))
        assert (await again.next()).what == ("completed", str(job))


async def test_many_reports_are_one_write_and_the_last_of_them(
    api: Api, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "EVERY_S", 3600.0)
    writes: list[list[ProgressReport]] = []
    report = engine.report_progress

    async def watched(
        connection: Connection, rows: list[ProgressReport], **how: Any
    ) -> set[EntryId]:
        writes.append(rows)
        return await report(connection, rows, **how)

    monkeypatch.setattr(engine, "report_progress", watched)
    handler = Long()
    async with dispatching(desk, {QUEUE: handler}):
        job = desk.enqueue(notify=True)
        await desk.until(lambda: handler.progress is not no_progress)
        for done in range(10_001):
            handler.progress(done, 10_000, f"row {done} of a secret")
        await until_shown(api, job, 1.0)
        for done in range(1_000):
            handler.progress(done, 10_000)
        handler.end()
        await desk.until_status(job, "sent")
    assert [len(rows) for rows in writes] == [1]


async def test_a_reader_that_comes_back_gets_the_last_report_of_what_runs(
    api: Api, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(book, "EVERY_S", 0.05)
    handler = Long()
    async with dispatching(desk, {QUEUE: handler}):
        async with reading(api.client, event="progress") as stream:
            await stream.started()
            job = desk.enqueue(notify=True)
            handler.say(0.1)
            last = await stream.next()
        for part in (0.2, 0.3):
            handler.say(part)
            await until_shown(api, job, part)
        async with running_api(api.database.url, admin_key=ADMIN_KEY) as other:
            other.headers["authorization"] = f"Bearer {ADMIN_KEY}"
            async with reading(other, last.id, event="progress") as stream:
                told = await stream.next()
                assert told.data["progress"]["fraction"] == 0.3
        # Nothing twice: the next that comes behind it is the next report.
        async with by_socket(api, told.id) as socket:
            handler.say(0.4)
            while (message := await socket.receive_json(timeout=SOON_S))["event"] != "progress":
                pass
            assert message["data"]["progress"]["fraction"] == 0.4
        handler.end()
        await desk.until_status(job, "sent")


@contextlib.asynccontextmanager
async def by_socket(api: Api, last_id: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    address = f"{api.client.base_url}/api/v1/stream"
    auth = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with (
        aiohttp.ClientSession(headers=auth) as session,
        session.ws_connect(
            address, params={"event": "progress", "last_event_id": last_id}
        ) as socket,
    ):
        yield socket


def report_of(row: engine.Claimed, done: float) -> ProgressReport:
    return ProgressReport(
        id=row.id, lease_no=row.lease_no, tenant_id="default", done=done, total=1.0, note=None
    )


async def test_a_dispatcher_that_lost_its_lease_reports_nothing(
    api: Api, desk: Desk, hand: Hand
) -> None:
    link = await connect(desk.database)
    a, b = await register(link, 1), await register(link, 2)
    job = desk.enqueue()
    (old,) = await claim(link, desk, epoch=a)
    assert await engine.report_progress(link, [report_of(old, 0.5)], epoch=a) == {old.id}
    assert (await shown(api, job))["fraction"] == 0.5
    # Its lease moves on: what it said is not shown, and what it says is not written.
    await engine.rescue(link, dead=[a], epoch=b)
    assert await shown(api, job) is None
    assert await engine.report_progress(link, [report_of(old, 0.6)], epoch=a) == set()
    (new,) = await claim(link, desk, epoch=b)
    for zombie, epoch in ((old, a), (old, b), (new, a)):
        assert await engine.report_progress(link, [report_of(zombie, 0.7)], epoch=epoch) == set()
        assert await shown(api, job) is None
    assert await engine.report_progress(link, [report_of(new, 0.1)], epoch=b) == {new.id}
    await engine.forget_progress(link, [old.lease])  # nor does it forget what is another's
    assert (await shown(api, job))["fraction"] == 0.1
    # A rescuer that holds the entry is not waited for.
    with desk.database.admin_connect() as rescuer:
        rescuer.execute("select from outbox.entry for update")
        async with asyncio.timeout(SOON_S):
            assert await engine.report_progress(link, [report_of(new, 0.2)], epoch=b) == set()
    await link.close()


async def test_what_a_crash_leaves_behind_is_pruned(desk: Desk) -> None:
    link = await connect(desk.database)
    a = await register(link, 1)
    desk.enqueue()
    (row,) = await claim(link, desk, epoch=a)
    await engine.report_progress(link, [report_of(row, 0.5)], epoch=a)
    desk.admin.execute("update outbox.progress set at = at - interval '2 minutes'")
    assert await retention.prune_progress(link) == 0  # it runs
    await engine.rescue(link, dead=[a], epoch=a)
    assert await retention.prune_progress(link) == 1
    await link.close()


async def test_jobs_that_report_nothing_write_nothing_of_it(desk: Desk) -> None:
    for _ in range(20):
        desk.enqueue()
    await drain(desk, {QUEUE: Scripted()})
    assert desk.value("select pg_relation_size('outbox.progress')") == 0
    assert not takes_progress(Scripted)
    assert takes_progress(Long)


async def test_a_number_that_is_no_part_of_a_whole_fails_the_attempt_and_says_so(
    desk: Desk,
) -> None:
    handler = Long()
    async with dispatching(desk, {QUEUE: handler}):
        for done, total in ((-1, 1), (float("nan"), 1), (1, 0), (1, -2), (1, float("inf"))):
            job = desk.enqueue(notify=True, max_attempts=1)
            handler.say(done, total)
            await desk.until_status(job, "failed")
            said = desk.value(
                "select error_message from outbox.dead_letter where job_id = %s", job
            )
            assert said == f"ValueError: progress: {done!r} of {total!r} is no part of a whole"

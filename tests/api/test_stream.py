"""The stream of job events: what readers get, in which order, and where they go on."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import httpx
import psycopg
import pytest

from outbox.message import Epoch
from outbox.outcome import Rejected, Retryable
from outbox.store import engine
from outbox.store.stream import KEPT_S, Cursor, Mark, read_cursor, write_cursor
from outbox_api import following, live
from tests.api.conftest import ADMIN_KEY, Api, job, running_api
from tests.engine.desk import QUEUE, Desk, Scripted, connect, drain, enqueue_on, register

SOON_S = 30.0


@dataclass
class Got:
    """One server-sent event."""

    id: str = ""
    name: str = ""
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def what(self) -> tuple[str, str]:
        return self.name, str(self.data.get("job_id"))


class Reading:
    """An open stream: its events, one after the other."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.aiter_lines()
        self.retry_ms: int | None = None
        self.last_id = ""

    async def next(self) -> Got:
        """Return the next event; those that have an id alone move `last_id`."""
        async with asyncio.timeout(SOON_S):
            while (got := await self._block()).name == "":
                pass
            return got

    async def started(self) -> None:
        """Return when it is known where this reader is."""
        async with asyncio.timeout(SOON_S):
            while not self.last_id:
                await self._block()

    async def _block(self) -> Got:
        got = Got()
        async for line in self._lines:
            if not line:
                return got
            name, _, value = line.partition(": ")
            if name == "id":
                got.id = self.last_id = value
            elif name == "event":
                got.name = value
            elif name == "data":
                got.data = json.loads(value)
            elif name == "retry":
                self.retry_ms = int(value)
        raise EOFError


@contextlib.asynccontextmanager
async def reading(
    client: httpx.AsyncClient, last_id: str | None = None, **query: str
) -> AsyncIterator[Reading]:
    headers = {} if last_id is None else {"last-event-id": last_id}
    async with client.stream("GET", "/api/v1/stream", params=query, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        assert response.headers["content-type"] == "text/event-stream"
        yield Reading(response)


@pytest.fixture
def desk(api: Api) -> Any:
    desk = Desk(api.database)
    yield desk
    desk.close()


async def test_a_job_s_events_come_in_order_and_name_it(api: Api, desk: Desk) -> None:
    async with reading(api.client) as stream:
        await stream.started()
        assert stream.retry_ms == 2000
        sent = desk.enqueue(max_attempts=1)
        assert (await stream.next()).what == ("enqueued", str(sent))
        await drain(desk, {QUEUE: Scripted()})
        done = await stream.next()
        assert done.what == ("completed", str(sent))
        assert done.data["queue"] == QUEUE
        assert done.data["attempt"] == 1
        assert done.data["duration_ms"] is not None


async def test_who_comes_back_gets_what_came_meanwhile_and_nothing_twice(
    api: Api, desk: Desk
) -> None:
    async with reading(api.client) as stream:
        await stream.started()
        first = desk.enqueue()
        got = await stream.next()
        assert got.what == ("enqueued", str(first))
    missed = [desk.enqueue() for _ in range(3)]
    await drain(desk, {QUEUE: Scripted()})
    async with reading(api.client, got.id) as stream:
        found = [await stream.next() for _ in range(7)]
    assert [one.what for one in found[:3]] == [("enqueued", str(job)) for job in missed]
    assert {one.what for one in found[3:]} == {("completed", str(job)) for job in [first, *missed]}
    # And from the middle of those, at another replica.
    async with running_api(api.database.url, admin_key=ADMIN_KEY) as other:
        other.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        async with reading(other, found[4].id) as stream:
            again = [await stream.next() for _ in range(2)]
            assert [one.what for one in again] == [one.what for one in found[5:]]
            assert [one.id for one in again] == [one.id for one in found[5:]]
            last = desk.enqueue()
            assert (await stream.next()).what == ("enqueued", str(last))


async def test_a_transaction_that_commits_late_is_not_skipped(api: Api, desk: Desk) -> None:
    with api.database.admin_connect() as slow:
        late = enqueue_on(slow)
        slow.execute("savepoint a")  # its rows carry the savepoint's number, not the transaction's
        under_savepoint = enqueue_on(slow)
        slow.execute("release a")
        async with reading(api.client) as stream:
            await stream.started()
            before = stream.last_id
            fast = desk.enqueue()
            got = await stream.next()
            assert got.what == ("enqueued", str(fast))
            slow.commit()
            late_ones = [(await stream.next()).what for _ in range(2)]
            assert late_ones == [("enqueued", str(late)), ("enqueued", str(under_savepoint))]
    # Nor when it is read from history: from before all of it, and from between.
    async with reading(api.client, before) as stream:
        everything = {(await stream.next()).what for _ in range(3)}
        assert everything == {("enqueued", str(j)) for j in (late, under_savepoint, fast)}
    async with reading(api.client, got.id) as stream:
        assert [(await stream.next()).what for _ in range(2)] == late_ones


async def test_no_event_is_skipped_or_told_twice_while_many_write(api: Api, desk: Desk) -> None:
    """Writers hold transactions open for a while; a reader breaks off and goes on all the time."""
    writers, each = 6, 25

    def write(number: int) -> list[str]:
        made = []
        with psycopg.connect(api.database.admin_url) as connection:
            for step in range(each):
                made.append(str(enqueue_on(connection)))
                if (step + number) % 3 == 0:
                    connection.execute("select pg_sleep(random() * 0.05)")
                if (step + number) % 4 == 0:
                    connection.commit()
        return made

    seen: list[str] = []
    async with reading(api.client) as stream:
        await stream.started()
        last_id = stream.last_id
    async with asyncio.TaskGroup() as group:
        writing = [group.create_task(asyncio.to_thread(write, n)) for n in range(writers)]
        while len(seen) < writers * each:
            async with reading(api.client, last_id) as stream:
                for _ in range(min(10, writers * each - len(seen))):
                    got = await stream.next()
                    last_id = got.id
                    seen.append(str(got.data["job_id"]))
    assert sorted(seen) == sorted(job for task in writing for job in task.result())


async def test_a_tenant_s_key_follows_its_own_jobs_alone(api: Api, desk: Desk) -> None:
    api.rows("insert into outbox.tenant (tenant_id) values ('acme'), ('other')")
    key = await api.new_key("acme", "jobs:read")
    async with api.with_key(key) as client, reading(client) as stream:
        await stream.started()
        before = stream.last_id
        desk.enqueue(tenant="other")
        own = desk.enqueue(tenant="acme")
        assert (await stream.next()).what == ("enqueued", str(own))
        refused = await client.get("/api/v1/stream", params={"tenant_id": "other"})
        assert refused.status_code == 403
    async with api.with_key(key) as client, reading(client, before) as stream:
        assert (await stream.next()).what == ("enqueued", str(own))


async def test_a_test_key_follows_test_jobs_alone(api: Api, desk: Desk) -> None:
    made = await api.client.post(
        "/api/v1/api-keys",
        json={
            "name": "test",
            "tenant_id": "default",
            "scopes": ["jobs:write", "jobs:read"],
            "mode": "test",
        },
    )
    assert made.status_code == 201, made.text
    async with api.with_key(made.json()["key"]) as client, reading(client) as stream:
        await stream.started()
        before = stream.last_id
        desk.enqueue()
        posted = await client.post("/api/v1/jobs", json=job())
        assert posted.status_code == 202, posted.text
        tried = ("enqueued", posted.json()["job_id"])
        assert (await stream.next()).what == tried
    async with api.with_key(made.json()["key"]) as client, reading(client, before) as stream:
        assert (await stream.next()).what == tried


async def test_a_reader_chooses_queues_events_and_one_job(api: Api, desk: Desk) -> None:
    desk.handle("media")
    async with (
        reading(api.client, queue="media,none") as by_queue,
        reading(api.client, event="cancelled") as by_event,
    ):
        await by_queue.started()
        await by_event.started()
        plain = desk.enqueue()
        media = desk.enqueue(queue="media")
        assert (await by_queue.next()).what == ("enqueued", str(media))
        assert (await api.client.post(f"/api/v1/jobs/{plain}/cancel")).status_code == 200
        assert (await by_event.next()).what == ("cancelled", str(plain))
    async with reading(api.client, by_event.last_id, job_id=str(plain)) as by_job:
        desk.enqueue()
        await by_job.started()
    start = by_queue.last_id
    async with reading(api.client, start, job_id=str(plain)) as by_job:
        assert (await by_job.next()).what == ("cancelled", str(plain))


async def fail(message: Any) -> Any:
    return Rejected(code="smtp.550", reason="no such user")


async def again(message: Any) -> Any:
    return Retryable(code="smtp.421", reason="busy", retry_after_s=3600)


async def test_every_kind_of_event_is_told(api: Api, desk: Desk) -> None:
    for queue in ("bad", "busy"):
        desk.handle(queue)
    async with reading(api.client) as stream:
        await stream.started()
        failed, retrying = desk.enqueue(queue="bad"), desk.enqueue(queue="busy")
        expired = desk.enqueue(expires_at="2020-01-01T00:00:00Z")
        names = [(await stream.next()).what for _ in range(4)]
        assert set(names) == {
            ("enqueued", str(failed)),
            ("enqueued", str(retrying)),
            ("enqueued", str(expired)),
            ("expired", str(expired)),
        }
        assert names.index(("enqueued", str(expired))) < names.index(("expired", str(expired)))
        await drain(desk, {"bad": Scripted(fail), "busy": Scripted(again)})
        told = [await stream.next() for _ in range(2)]
        assert {one.what for one in told} == {("failed", str(failed)), ("retrying", str(retrying))}
        by_name = {one.name: one.data for one in told}
        assert by_name["failed"]["error_code"] == "smtp.550"
        assert by_name["retrying"]["next_attempt_at"] is not None
        # Again, in a new series.
        assert (await api.client.post(f"/api/v1/jobs/{failed}/retry")).status_code in (200, 202)
        assert (await stream.next()).what == ("enqueued", str(failed))
        # A dispatcher that dies while it has a job.
        connection = await connect(api.database)
        await register(connection, 7)
        desk.admin.execute(
            "update outbox.entry set claimed_by = 7, claimed_at = now(), lease_no = lease_no + 1,"
            " attempt = attempt + 1, lease_until = now() - interval '1 s'"
            " where id = (select id from outbox.job where job_id = %s)",
            (failed,),
        )
        await engine.rescue(connection, dead=[Epoch(7)], epoch=Epoch(8))
        assert (await stream.next()).what == ("stalled", str(failed))
        await drain(desk, {"bad": Scripted(fail), "busy": Scripted(again)})
        assert (await stream.next()).what == ("failed", str(failed))
        await connection.close()


async def test_a_slow_reader_costs_no_memory_and_misses_nothing(
    api: Api, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More happens than is kept while it looks away: history has the rest."""
    monkeypatch.setattr(following, "KEPT_MAX", 64)
    async with running_api(api.database.url, admin_key=ADMIN_KEY) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        async with reading(client) as slow, reading(client, event="expired") as other:
            await slow.started()
            await other.started()
            desk.admin.execute(
                "select from outbox.enqueue_many_v1(array(select jsonb_build_object("
                "'queue', %s::text, 'payload', '{}'::jsonb, 'expires_at', now() - interval '1 s')"
                " from generate_series(1, 2000)), fill_created => true)",
                (QUEUE,),
            )
            for _ in range(2000):
                await other.next()
            told = [(await slow.next()).what for _ in range(4000)]
    assert len(set(told)) == 4000


async def test_who_takes_nothing_is_cut_off(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "SEND_S_MAX", 0.3)
    made = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal made
        while True:
            made += 1
            yield b"data: %s\n\n" % (b"x" * 65_536)

    monkeypatch.setattr("outbox_api.routes.stream._as_events", lambda _: endless())
    reader, writer = await stuck_reader(api.client)
    async with asyncio.timeout(SOON_S):
        last = -1
        while made == 0 or made != last:  # it makes nothing more once the sockets are full
            last = made
            await asyncio.sleep(1.0)
    assert made * 65_536 < 32_000_000
    async with asyncio.timeout(SOON_S):
        while await reader.read(1_000_000):  # what was on its way, and then the end
            pass
    writer.close()


async def test_streams_end_at_once_when_the_server_stops(api: Api) -> None:
    """Also those that take nothing: neither can keep a rollout waiting."""
    auth = {"authorization": f"Bearer {ADMIN_KEY}"}
    server = running_api(api.database.url, admin_key=ADMIN_KEY)
    client = await server.__aenter__()
    client.headers.update(auth)
    async with contextlib.AsyncExitStack() as stack:
        stream = await stack.enter_async_context(reading(client))
        await stream.started()
        session = await stack.enter_async_context(aiohttp.ClientSession(headers=auth))
        socket = await stack.enter_async_context(
            session.ws_connect(f"{client.base_url}/api/v1/stream")
        )
        assert (await socket.receive_json())["event"] == "here"
        async with asyncio.timeout(5.0):
            stopping = asyncio.create_task(server.__aexit__(None, None, None))
            with pytest.raises((EOFError, httpx.HTTPError)):
                await stream.next()
            assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 1001
            await stopping


async def test_a_reader_that_takes_nothing_keeps_no_server_from_stopping(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"data: %s\n\n" % (b"x" * 65_536)
            asyncio.get_running_loop().call_later(0.5, full.set)

    monkeypatch.setattr("outbox_api.routes.stream._as_events", lambda _: endless())
    monkeypatch.setattr("outbox_api.wire.GRACE_S_MAX", 1)
    server = running_api(api.database.url, admin_key=ADMIN_KEY)
    client = await server.__aenter__()
    _, writer = await stuck_reader(client)
    await full.wait()
    async with asyncio.timeout(10.0):
        await server.__aexit__(None, None, None)
    writer.close()


async def stuck_reader(
    client: httpx.AsyncClient,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a stream, and read nothing of it."""
    url = client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=4096)
    writer.write(
        b"GET /api/v1/stream HTTP/1.1\r\nhost: localhost\r\n"
        b"authorization: Bearer %s\r\n\r\n" % ADMIN_KEY.encode()
    )
    return reader, writer


async def test_a_websocket_gets_the_same_and_goes_on_the_same(api: Api, desk: Desk) -> None:
    address = f"{api.client.base_url}/api/v1/stream"
    auth = {"authorization": f"Bearer {ADMIN_KEY}"}
    async with aiohttp.ClientSession(headers=auth) as session:
        async with session.ws_connect(address, params={"event": "enqueued"}) as socket:
            assert (await socket.receive_json())["event"] == "here"
            job = desk.enqueue()
            told = await socket.receive_json(timeout=SOON_S)
            assert (told["event"], told["data"]["job_id"]) == ("enqueued", str(job))
        missed = desk.enqueue()
        async with session.ws_connect(address, params={"last_event_id": told["id"]}) as socket:
            while (told := await socket.receive_json(timeout=SOON_S))["event"] == "here":
                pass
            assert (told["event"], told["data"]["job_id"]) == ("enqueued", str(missed))


async def test_a_websocket_without_a_key_is_refused_with_a_problem(api: Api) -> None:
    address = f"{api.client.base_url}/api/v1/stream"
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(address)
        assert refused.value.status == 401
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(
                address,
                headers={"authorization": f"Bearer {ADMIN_KEY}"},
                params={"event": "gone"},
            )
        assert refused.value.status == 400


async def test_without_keys_a_page_of_another_host_opens_no_websocket(open_api: Api) -> None:
    address = f"{open_api.client.base_url}/api/v1/stream"
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(address, headers={"origin": "https://evil.example"})
        assert refused.value.status == 403
        async with session.ws_connect(address) as socket:
            assert (await socket.receive_json())["event"] == "here"


@pytest.mark.parametrize("last_id", ["x", "%", "AAAA", "kgEC", "a" * 40_000])
async def test_an_id_that_was_never_told_is_refused(api: Api, last_id: str) -> None:
    answer = await api.client.get("/api/v1/stream", headers={"last-event-id": last_id})
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["pointer"] == "/header/last-event-id"


async def test_what_cannot_be_followed_is_said(api: Api) -> None:
    for query, pointer in (
        ({"event": "started"}, "/query/event"),
        ({"job_id": "7"}, "/query/job_id"),
        ({"colour": "red"}, "/query/colour"),
    ):
        answer = await api.client.get("/api/v1/stream", params=query)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["pointer"] == pointer


async def test_nobody_looks_at_the_store_while_nobody_follows(api: Api) -> None:
    def looking() -> bool:
        return any(task.get_name() == "tail" for task in asyncio.all_tasks())

    async with reading(api.client) as stream:
        await stream.started()
        assert looking()
    async with asyncio.timeout(SOON_S):
        while looking():
            await asyncio.sleep(0.01)


async def test_what_lies_too_far_back_is_named_by_a_gap(api: Api, desk: Desk) -> None:
    async with reading(api.client) as stream:
        await stream.started()
        job_id = desk.enqueue()
        assert (await stream.next()).what == ("enqueued", str(job_id))
        now = read_cursor(stream.last_id)
    assert now is not None
    week_ms = KEPT_S * 1000
    old = write_cursor(Cursor(Mark(3, now.before.at_ms - week_ms - 86_400_000)))
    async with reading(api.client, old) as stream:
        gap = await stream.next()
        assert gap.name == "gap"
        since, until = (datetime.fromisoformat(gap.data[name]) for name in ("since", "until"))
        assert abs((until - since) - timedelta(days=1)) < timedelta(minutes=5)
        assert abs(datetime.now(UTC) - until - timedelta(days=7)) < timedelta(minutes=5)
        assert "GET /api/v1/jobs?since=" in gap.data["detail"]
        # And then what is kept.
        assert (await stream.next()).what == ("enqueued", str(job_id))


async def test_an_id_of_a_past_that_was_lost_begins_with_a_gap(api: Api, desk: Desk) -> None:
    """A primary failed, and what it had told last never came to the one that stands in for it."""
    async with reading(api.client) as stream:
        await stream.started()
        here = read_cursor(stream.last_id)
    assert here is not None
    ahead = write_cursor(Cursor(Mark(here.before.xmax + 1_000_000, here.before.at_ms)))
    async with reading(api.client, ahead) as stream:
        assert (await stream.next()).name == "gap"
        job_id = desk.enqueue()
        assert (await stream.next()).what == ("enqueued", str(job_id))


async def test_what_is_rolled_up_is_still_told(api: Api, desk: Desk) -> None:
    async with reading(api.client) as stream:
        await stream.started()
        before = read_cursor(stream.last_id)
    assert before is not None
    jobs = [desk.enqueue() for _ in range(3)]
    await drain(desk, {QUEUE: Scripted()})
    desk.admin.execute("update outbox.stat_second set at = at - interval '30 minutes'")
    connection = await connect(api.database)
    assert await engine.roll_up(connection) > 0
    await connection.close()
    assert desk.value("select count(*) from outbox.stat_second where ids is not null") == 0
    assert desk.value("select sum(cardinality(ids)) from outbox.outcome_log") == 3
    mark = Mark(before.before.xmax, before.before.at_ms - 3_600_000, before.before.open)
    async with reading(api.client, write_cursor(Cursor(mark))) as stream:
        told = {(await stream.next()).what for _ in range(6)}
    assert told == {(name, str(j)) for name in ("enqueued", "completed") for j in jobs}

"""The channel `ws`: from a job to the sockets that a user has open, on any API replica."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import aiohttp
import httpx
import pytest

from outbox_dispatcher.sockets import SocketChannel
from tests.api.conftest import ADMIN_KEY, running_api
from tests.e2e.test_channels_through_the_engine import notify, template
from tests.engine.desk import Desk, dispatching
from tests.postgres import Database

SOON_S = 30.0
AUTH = {"authorization": f"Bearer {ADMIN_KEY}"}


@pytest.fixture
def desk(database: Database) -> Iterator[Desk]:
    desk = Desk(database)
    template(desk, code="ping", channel="ws", subject="Hi", text="Hello {{ name }}")
    yield desk
    desk.close()


@contextlib.asynccontextmanager
async def replica(desk: Desk) -> AsyncIterator[httpx.AsyncClient]:
    async with running_api(desk.database.url) as client:
        client.headers.update(AUTH)
        yield client


async def ticket(client: httpx.AsyncClient, user: str, **query: str) -> str:
    made = await client.post(f"/api/v1/recipients/{user}/socket-tickets", params=query)
    assert made.status_code == 201, made.text
    text: str = made.json()["ticket"]
    return text


@contextlib.asynccontextmanager
async def connected(
    client: httpx.AsyncClient, user: str, *, opened_at: httpx.AsyncClient | None = None
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Open a user's socket; `opened_at`: the replica, where the ticket was made at another."""
    address = f"{(opened_at or client).base_url}/api/v1/ws"
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(address, params={"ticket": await ticket(client, user)}) as socket,
    ):
        hello = await socket.receive_json(timeout=SOON_S)
        assert (hello["type"], hello["user_id"]) == ("hello", user)
        yield socket


@contextlib.asynccontextmanager
async def delivering(desk: Desk, **settings: str) -> AsyncIterator[None]:
    channel = SocketChannel(desk.database.url, settings)
    async with dispatching(desk, {}, channels={"ws": channel}):
        yield


def ping(desk: Desk, user: str = "u1", **fields: object) -> Any:
    return notify(desk, channel="ws", user_id=user, template_code="ping", **fields)


async def test_a_message_reaches_each_socket_of_its_user_on_any_replica(desk: Desk) -> None:
    async with (
        replica(desk) as one,
        replica(desk) as two,
        connected(one, "u1") as phone,
        connected(one, "u1", opened_at=two) as laptop,
        connected(two, "u2") as other,
        delivering(desk),
    ):
        job_id = ping(desk)
        for socket in (phone, laptop):
            message = await socket.receive_json(timeout=SOON_S)
            assert message["id"] == str(job_id)
            assert (message["subject"], message["text"]) == ("Hi", "Hello Нуржан")
            assert message["data"] == {"name": "Нуржан"}
        await laptop.send_json({"ack": message["id"]})
        await desk.until_status(job_id, "sent")
        second = ping(desk, "u2")
        assert (await other.receive_json(timeout=SOON_S))["id"] == str(second)
        await other.send_json({"ack": str(second)})
        await desk.until_status(second, "sent")
    assert desk.deliveries(job_id) == [("SENT", 1, None, False)]
    provider, recipient = desk.rows(
        "select provider, recipient from outbox.notification_delivery where job_id = %s", job_id
    )[0]
    assert (provider, recipient) == ("ws", "u1")
    assert desk.value("select count(*) from outbox.socket_message") == 0
    assert desk.value("select count(*) from outbox.socket") == 0


@pytest.mark.parametrize(
    ("opens", "acknowledges", "fallback", "status", "code"),
    [
        ("nothing", False, "retry", "retrying", "ws.no_socket"),
        ("nothing", False, "inbox", "sent", None),
        ("socket", False, "retry", "retrying", "ws.unacknowledged"),
        ("socket", False, "inbox", "retrying", "ws.unacknowledged"),
        ("socket", True, "retry", "sent", None),
        ("dead replica", False, "retry", "retrying", "ws.no_socket"),
    ],
)
async def test_each_row_of_the_table_of_errors(
    desk: Desk, opens: str, acknowledges: bool, fallback: str, status: str, code: str | None
) -> None:
    if opens == "dead replica":  # killed: it could neither say goodbye nor answer
        desk.admin.execute("insert into outbox.socket values ('default', 'u1', 7)")
        desk.admin.execute(
            "insert into outbox.api_process (process_id, name, version, schema_revision, pid)"
            " values (7, 'gone', '0', 1, 1)"
        )
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(replica(desk))
        await stack.enter_async_context(delivering(desk, WS_FALLBACK=fallback, WS_ACK_S="1"))
        if opens == "socket":
            socket = await stack.enter_async_context(connected(client, "u1"))
        job_id = ping(desk)
        if opens == "socket":
            message = await socket.receive_json(timeout=SOON_S)
            if acknowledges:
                await socket.send_json({"ack": message["id"]})
        await desk.until_status(job_id, status)
        status_kept, attempt, error_code, _ = desk.deliveries(job_id)[0]
        assert (status_kept, attempt, error_code) == (
            "SENT" if status == "sent" else "RETRYING",
            1,
            code,
        )
    inbox = desk.rows("select user_id, subject, body from outbox.inbox_message")
    fell = status == "sent" and opens == "nothing"
    assert inbox == ([("u1", "Hi", "Hello Нуржан")] if fell else [])


async def test_a_tenant_s_own_row_decides_what_no_socket_means(desk: Desk) -> None:
    async with replica(desk) as client, delivering(desk):
        rule = {"code": "ws.no_socket", "becomes": "permanent", "channel": "ws"}
        stored = await client.put("/api/v1/tenants/default", json={"error_rules": [rule]})
        assert stored.status_code == 200, stored.text
        job_id = ping(desk)
        await desk.until_status(job_id, "failed")
    assert desk.deliveries(job_id) == [("FAILED", 1, "ws.no_socket", False)]


async def test_a_job_for_nobody_is_rejected(desk: Desk) -> None:
    desk.admin.execute("insert into outbox.handler values ('channel', 'ws')")
    async with delivering(desk):
        job_id = ping(desk, user=None, to="u9")  # type: ignore[arg-type]
        await desk.until_status(job_id, "retrying", "failed")
    assert desk.deliveries(job_id)[0][2] == "ws.no_socket"  # `to` names the user


async def test_what_failed_for_want_of_a_socket_arrives_once_one_is_open(desk: Desk) -> None:
    async with replica(desk) as client, delivering(desk):
        job_id = ping(desk)
        await desk.until_status(job_id, "retrying")
        async with connected(client, "u1") as socket:
            desk.admin.execute("update outbox.entry set available_at = now()")
            message = await socket.receive_json(timeout=SOON_S)
            await socket.send_json({"ack": message["id"]})
            await desk.until_status(job_id, "sent")
    assert [row[0] for row in desk.deliveries(job_id)] == ["RETRYING", "SENT"]


async def test_only_a_fresh_ticket_of_ours_opens_a_socket(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replica(desk) as client, aiohttp.ClientSession() as session:
        good = await ticket(client, "u1")
        forged = ("A" if good[5] != "A" else "B").join((good[:5], good[6:]))
        monkeypatch.setattr("outbox_api.routes.sockets.TICKET_S", -1)
        old = await ticket(client, "u1")
        address = f"{client.base_url}/api/v1/ws"
        for text, status in (("x", 401), (forged, 401), (old, 401), ("", 400), (None, 400)):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect(address, params={} if text is None else {"ticket": text})
            assert refused.value.status == status, text
        plain = await client.get("/api/v1/ws", params={"ticket": good})
        assert plain.status_code in (404, 405, 426)


async def test_a_tenant_makes_tickets_for_its_own_users_alone(desk: Desk) -> None:
    desk.admin.execute("insert into outbox.tenant (tenant_id) values ('acme')")
    async with replica(desk) as client:
        made = await client.post(
            "/api/v1/api-keys",
            json={"name": "acme", "tenant_id": "acme", "scopes": ["jobs:write"]},
        )
        theirs = {"authorization": f"Bearer {made.json()['key']}"}
        path = "/api/v1/recipients/u1/socket-tickets"
        assert (await client.post(path, headers=theirs)).status_code == 201
        other = await client.post(path, headers=theirs, params={"tenant_id": "default"})
        assert other.status_code == 403
        client.headers.update(theirs)
        async with connected(client, "u1") as socket, delivering(desk):
            job_id = ping(desk)  # of the default tenant's u1
            await desk.until_status(job_id, "retrying")
            with pytest.raises(TimeoutError):
                await socket.receive(timeout=0.5)


async def test_a_client_that_talks_nonsense_is_told_and_one_that_takes_nothing_costs_little(
    desk: Desk,
) -> None:
    async with replica(desk) as client, connected(client, "u1") as socket:
        for text in ("{", "[]", '{"ack": 7}', "[7]", "x" * 5000):
            await socket.send_str(text)
            assert (await socket.receive_json(timeout=SOON_S))["type"] == "error"
        await socket.send_json({"ack": str(uuid4())})  # of nothing: no harm
        async with delivering(desk):
            job_id = ping(desk)
            message = await socket.receive_json(timeout=SOON_S)
            await socket.send_json({"ack": message["id"]})
            await desk.until_status(job_id, "sent")


async def test_hello_tells_how_much_is_unread(desk: Desk) -> None:
    desk.admin.execute(
        "insert into outbox.inbox_message (id, tenant_id, user_id, body)"
        " values (1, 'default', 'u1', 'a'), (2, 'default', 'u1', 'b'), (3, 'default', 'u2', 'c')"
    )
    async with replica(desk) as client, aiohttp.ClientSession() as session:
        text = await ticket(client, "u1")
        address = f"{client.base_url}/api/v1/ws"
        async with session.ws_connect(address, params={"ticket": text}) as socket:
            assert (await socket.receive_json(timeout=SOON_S))["unread"] == 2


async def test_a_server_that_stops_closes_users_sockets_and_forgets_them(desk: Desk) -> None:
    server = replica(desk)
    client = await server.__aenter__()
    async with connected(client, "u1") as socket:
        assert desk.value("select count(*) from outbox.socket") == 1
        async with asyncio.timeout(10.0):
            stopping = asyncio.create_task(server.__aexit__(None, None, None))
            assert (await socket.receive()).type == aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 1001
            await stopping
    assert desk.value("select count(*) from outbox.socket") == 0

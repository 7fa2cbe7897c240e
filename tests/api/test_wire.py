"""What HTTP/1.1 itself allows a client: heads have an end, and are sent in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from outbox_api import wire
from tests.api.conftest import Api, free_port, running_api

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
PROMPT_S = 10


@pytest.fixture
async def raw(open_api: Api) -> AsyncIterator[Streams]:
    """A connection to speak on by hand."""
    url = open_api.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    yield reader, writer
    writer.close()


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(PROMPT_S):
        return await reader.read()


def problem_in(answer: bytes) -> dict[str, object]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    assert b"connection: close" in head
    document: dict[str, object] = json.loads(body)
    return document


async def test_what_is_no_http_gets_a_problem_document(raw: Streams) -> None:
    reader, writer = raw
    writer.write(b"\x16\x03\x01 hello\r\n\r\n")
    answer = await until_closed(reader)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert problem_in(answer)["status"] == 400


async def test_a_head_without_an_end_is_refused(raw: Streams) -> None:
    reader, writer = raw
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: ")
    writer.write(b"x" * (wire.HEAD_BYTES_MAX + 300_000))
    answer = await until_closed(reader)
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert problem_in(answer)["detail"] == "The head of a request has at most 65536 bytes."


async def test_a_second_request_may_be_as_long_as_the_first(
    open_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = asyncio.Event()
    take = wire.GuardedProtocol.data_received

    def told(self: wire.GuardedProtocol, data: bytes) -> None:
        take(self, data)
        came.set()

    monkeypatch.setattr(wire.GuardedProtocol, "data_received", told)
    url = open_api.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    padding = b"x" * (wire.HEAD_BYTES_MAX * 2 // 3)
    for last in (b"", b"Connection: close\r\n"):
        came.clear()
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + padding)
        await came.wait()  # so that the head comes in two parts
        writer.write(b"\r\n" + last + b"\r\n")
        assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200 ")
    assert await until_closed(reader) == b""
    writer.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"GET /health/live HTTP/1.1\r\nHost: ",
        b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\nGET",
    ],
    ids=["nothing", "half a head", "half a second head"],
)
async def test_a_head_that_does_not_come_is_not_waited_for(
    said: bytes, open_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "HEAD_S_MAX", 0.1)
    url = open_api.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(said)
    await until_closed(reader)
    writer.close()


async def test_a_port_that_is_taken_is_refused(open_api: Api) -> None:
    with pytest.raises(OSError, match="in use"):
        async with running_api(open_api.database.url, port=open_api.client.base_url.port):
            pass


async def test_processes_that_share_a_port_all_listen(open_api: Api) -> None:
    port = free_port()
    async with (
        running_api(open_api.database.url, port=port, api_workers=2, auth=False) as one,
        running_api(open_api.database.url, port=port, api_workers=2, auth=False),
    ):
        assert (await one.get("/health/live")).status_code == 200

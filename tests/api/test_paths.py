"""Paths and methods: what is not there, HEAD, OPTIONS."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

import pytest

from tests.api.conftest import Api, Row, job


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/no%2Fthing", 404),
        ("GET", "/api/v1/jobs%2Fbatch", 404),
        ("GET", "/api/v1/jobs/%00", 404),
        ("GET", "/api/v1/recipients/a%00b", 404),
        ("PATCH", "/api/v1/jobs", 405),
        ("PUT", "/api/v1/queues/email/pause", 405),
        ("GET", "/api/v1/dead-letters/99999999999999999999", 404),
        ("GET", "/api/v1/dead-letters/x", 404),
        ("GET", "/sink/99999999999999999999999", 404),
        ("GET", "/api/v1/recipients/" + "x" * 129, 422),
    ],
)
async def test_what_is_not_there_is_a_problem_document(
    open_api: Api, method: str, path: str, status: int
) -> None:
    answer = await open_api.client.request(method, path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == status
    if status == 405:
        assert answer.headers["allow"]


@pytest.mark.parametrize(
    "path", ["/health/live", "/health/ready", "/metrics", "/schema", "/", "/api/v1/jobs"]
)
async def test_a_head_is_answered_like_a_get_without_its_body(open_api: Api, path: str) -> None:
    shown = await open_api.client.get(path)
    asked = await open_api.client.head(path)
    assert (asked.status_code, asked.content) == (200, b"")
    assert asked.headers["content-type"] == shown.headers["content-type"]


async def test_a_head_leaves_its_connection_in_order_and_nothing_in_the_log(
    open_api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    url = open_api.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    for path in (b"/health/live", b"/api/v1/jobs/batch", b"/api/v1/stream", b"/metrics"):
        writer.write(b"HEAD " + path + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert (b"content-length: " in head) == (path != b"/api/v1/stream")
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
    assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 200 ")
    writer.close()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_head_of_what_is_not_there_says_so(open_api: Api) -> None:
    assert (await open_api.client.head(f"/api/v1/jobs/{uuid4()}")).status_code == 404
    refused = await open_api.client.head("/api/v1/jobs/batch")
    assert (refused.status_code, refused.headers["allow"]) == (405, "OPTIONS, POST")


@pytest.mark.parametrize(
    ("path", "takes"),
    [
        ("/api/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/api/v1/jobs/batch", "OPTIONS, POST"),
        ("/api/v1/rules/6a9f7f26-4c0c-4a91-9f3d-b159c2dcb001", "DELETE, GET, HEAD, OPTIONS, PUT"),
        ("/health/live", "GET, HEAD, OPTIONS"),
    ],
)
async def test_options_and_a_405_name_every_method_of_a_path(
    open_api: Api, path: str, takes: str
) -> None:
    asked = await open_api.client.options(path)
    assert (asked.status_code, asked.headers["allow"]) == (204, takes)
    refused = await open_api.client.patch(path)
    assert (refused.status_code, refused.headers["allow"]) == (405, takes)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("schedules/%20", {"trigger": {"every_s": 60}, "job": job()}),
        ("schedules/%2E%2E", {"trigger": {"every_s": 60}, "job": job()}),
        ("templates/%2E%2E/email/en", {"subject": "x", "text": "x"}),
        ("templates/%2E/email/en", {"subject": "x", "text": "x"}),
        ("suppressions/email/zz", {}),
    ],
)
async def test_what_no_link_could_lead_to_is_not_stored(
    open_api: Api, path: str, body: Row
) -> None:
    url = open_api.client.base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    text = json.dumps(body).encode()  # by hand: clients take dots out of a path
    writer.write(
        b"PUT /api/v1/%b HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(text), text)
    )
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 422 "), answer
    assert b'"pointer":"/path/' in answer

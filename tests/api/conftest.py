"""A real server in the test's own event loop, over a real database, spoken to over real HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.rows import TupleRow

from outbox.config import Config
from outbox_api.server import serve_async
from tests.postgres import Database

ADMIN_KEY = "obx_the_first_key_of_all"
Row = dict[str, object]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def running_api(database_url: str, **settings: object) -> AsyncIterator[httpx.AsyncClient]:
    """Serve until the block ends; yield a client that knows the address, and no key."""
    config = Config(**{"admin_key": ADMIN_KEY, "port": free_port(), **settings})  # type: ignore[arg-type]
    stop = asyncio.Event()
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve_async(config, database_url, on_ready=ready.set_result, stop=stop)
    )
    either: list[asyncio.Future[Any]] = [serving, ready]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    try:
        async with httpx.AsyncClient(
            base_url=ready.result(),
            timeout=30,
            trust_env=False,
            limits=httpx.Limits(max_connections=100),
        ) as client:
            yield client
    finally:
        stop.set()
        await serving


@dataclass
class Api:
    """The API of one test: a client for each key, and a look behind the scenes."""

    client: httpx.AsyncClient
    database: Database

    def with_key(self, key: str | None) -> httpx.AsyncClient:
        """Return a client that sends `key`; close it or not, the connections are its own."""
        headers = {"authorization": f"Bearer {key}"} if key is not None else {}
        return httpx.AsyncClient(
            base_url=self.client.base_url, timeout=30, trust_env=False, headers=headers
        )

    def rows(self, query: str, *parameters: object) -> list[TupleRow]:
        """Return what the superuser sees."""
        with psycopg.connect(self.database.admin_url) as connection:
            cursor = connection.execute(query.encode(), parameters)
            found: list[TupleRow] = cursor.fetchall() if cursor.description else []
            return found

    def count(self, table: str) -> int:
        """Return how many rows a table of ours has."""
        (row,) = self.rows(f"select count(*) from outbox.{table}")
        return int(row[0])

    async def new_key(self, tenant: str, *scopes: str) -> str:
        """Make a key of a tenant; '*' is service-wide."""
        answer = await self.client.post(
            "/api/v1/api-keys",
            json={"name": f"key of {tenant}", "tenant_id": tenant, "scopes": list(scopes)},
        )
        assert answer.status_code == 201, answer.text
        key: str = answer.json()["key"]
        return key


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    """The API with keys asked for; `api.client` has the admin key."""
    async with running_api(database.url) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        yield Api(client, database)


@pytest.fixture
async def open_api(database: Database) -> AsyncIterator[Api]:
    """The API with OUTBOX_AUTH=off."""
    async with running_api(database.url, auth=False) as client:
        yield Api(client, database)


def job(**changes: object) -> Row:
    """Return a sound job, changed; None leaves a member out."""
    whole: Row = {
        "channel": "email",
        "to": "ann@example.com",
        "content": "Hello {{ name }}!",
        "data": {"name": "Ann"},
        "meta": {"event_type": "greeting", "priority": "normal"},
    }
    whole.update(changes)
    return {key: value for key, value in whole.items() if value is not None}

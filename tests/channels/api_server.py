"""Providers' HTTP APIs on this machine: each speaks its protocol, or says what it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs

from aiohttp import web
from multidict import CIMultiDictProxy

HANG: Final = "HANG"
DROP: Final = "DROP"
"""Instead of an answer: say nothing until the client goes away; cut the connection."""


@dataclass
class Call:
    """One request that arrived."""

    method: str
    path: str
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body.decode()).items()}

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    """What to answer."""

    status: int
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        if isinstance(self.body, bytes):
            return web.Response(status=self.status, body=self.body, headers=self.headers)
        return web.json_response(self.body, status=self.status, headers=self.headers)


Speak: TypeAlias = Callable[[Call], Reply]


@dataclass
class ApiServer:
    """A provider. `replies` go out first, one a request; then it does as its protocol says."""

    speak: Speak
    port: int = 0
    calls: list[Call] = field(default_factory=list)
    replies: deque[Reply | str] = field(default_factory=deque)

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        call = Call(request.method, request.path_qs, request.headers, await request.read())
        self.calls.append(call)
        if not self.replies:
            return self.speak(call).response()
        match self.replies.popleft():
            case Reply() as reply:
                return reply.response()
            case "DROP":
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case _:
                await asyncio.Event().wait()
                return web.Response()


@contextlib.asynccontextmanager
async def api_server(speak: Speak) -> AsyncIterator[ApiServer]:
    """Run a provider on a free port of this machine."""
    server = ApiServer(speak)
    runner = web.ServerRunner(web.Server(server.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.port = runner.addresses[0][1]
    try:
        yield server
    finally:
        await runner.cleanup()

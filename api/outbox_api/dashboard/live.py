"""What moves: server-sent events that carry a rendered part of a page whenever it has changed.

Each open page asks the store at a steady pace, for as long as its browser listens; nothing is
kept for it, so a reader that is slow or gone costs no memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from outbox.errors import StoreUnavailable
from outbox_api.dashboard.rendering import HEADERS
from outbox_api.problems import Problem
from outbox_api.requests import ApiRequest
from outbox_api.runtime import runtime_of

STREAM_S_MAX = 600.0
"""A browser begins anew by itself; so a key that was revoked is out by then at the latest."""
STREAMS_MAX = 200
SEND_S_MAX = 10.0
QUIET_S = 15.0

Part = Callable[[], Awaitable[str]]


class LivePart(ASGIResponse):
    """One part of a page, sent again when it has changed."""

    def __init__(self, request: ApiRequest, name: str, part: Part, *, every_s: float) -> None:
        super().__init__()
        self._request = request
        self._name = name
        self._part = part
        self._every_s = every_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI), until the browser goes, the server stops, or the time is over."""
        headers = HEADERS | {"content-type": "text/event-stream", "x-accel-buffering": "no"}
        wire = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": wire})
        ending = runtime_of(self._request).ending
        gone = asyncio.create_task(_until_gone(receive))
        stopped = asyncio.create_task(ending.wait())
        try:
            await self._send_changes(send, {gone, stopped})
        except (TimeoutError, OSError):
            pass
        finally:
            gone.cancel()
            stopped.cancel()
        if not gone.done() or gone.cancelled():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_changes(self, send: Send, ends: Collection[asyncio.Task[Any]]) -> None:
        loop = asyncio.get_running_loop()
        until_s, told_s, last = loop.time() + STREAM_S_MAX, 0.0, ""
        while loop.time() < until_s:
            try:
                text = await self._part()
            except (Problem, StoreUnavailable):
                text = last
            body = b""
            if text != last:
                lines = "".join(f"data: {line}\n" for line in text.splitlines())
                body = f"event: {self._name}\n{lines}\n".encode()
                last = text
            elif loop.time() - told_s > QUIET_S:
                body = b": still here\n\n"
            if body:
                told_s = loop.time()
                async with asyncio.timeout(SEND_S_MAX):
                    await send({"type": "http.response.body", "body": body, "more_body": True})
            done, _ = await asyncio.wait(
                ends, timeout=self._every_s, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                return


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

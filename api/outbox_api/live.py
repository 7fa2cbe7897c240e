"""What stays open: server-sent events and WebSockets.

Whoever is at the other end sets the pace: nothing is made before what went before was taken, so a
reader that is slow costs no memory, and one that takes nothing for `SEND_S_MAX` is cut off. A
server that stops ends them all at once.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from typing import Any, cast

from litestar.response.base import ASGIResponse
from litestar.types import Message, Receive, Scope, Send, WebSocketScope

from outbox_api.problems import Problem, problem_answer

STREAM_S_MAX = 600.0
"""A reader begins anew by itself; so a key that was revoked is out by then at the latest."""
STREAMS_MAX = 200
"""Of a process."""
SEND_S_MAX = 10.0
END_S_MAX = 1.0
SOCKETS_MAX = 10_000
SOCKET_S_MAX = 3_600.0
"""Users' own sockets: so many of a process, each for an hour, then with a new ticket."""
GOING_AWAY = 1001
POLICY_VIOLATION = 1008
TRY_AGAIN = 1013

SSE_HEADERS = {"content-type": "text/event-stream", "x-accel-buffering": "no"}


class Streams:
    """Those that are open in this process, and the end of all of them."""

    def __init__(self, *, open_max: int = STREAMS_MAX, open_s_max: float = STREAM_S_MAX) -> None:
        self.ending = asyncio.Event()
        """Set when the server stops."""
        self._open_max = open_max
        self._open_s_max = open_s_max
        self._open = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Count one that is open."""
        self._open += 1
        self._none.clear()
        try:
            yield
        finally:
            self._open -= 1
            if self._open == 0:
                self._none.set()

    def require_room(self) -> None:
        """Raise Problem 503 where there are as many as there may be."""
        if self._open >= self._open_max or self.ending.is_set():
            raise Problem(
                503, "No more streams can be opened here now.", headers={"retry-after": "5"}
            )

    async def end(self) -> None:
        """End all of them, and wait until they have been told, which slow ones may not be."""
        self.ending.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S_MAX):
                await self._none.wait()

    async def run(
        self, sending: Coroutine[Any, Any, None], gone: Coroutine[Any, Any, None]
    ) -> bool:
        """Run until all is sent, or the other end is gone, or it must end; tell if it is gone."""
        leaves = asyncio.create_task(gone)
        tasks = {asyncio.create_task(sending), leaves, asyncio.create_task(self.ending.wait())}
        try:
            await asyncio.wait(
                tasks, timeout=self._open_s_max, return_when=asyncio.FIRST_COMPLETED
            )
            is_gone = leaves.done()
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception) and not isinstance(error, (TimeoutError, OSError)):
                raise error
        return is_gone


class EventStream(ASGIResponse):
    """Server-sent events, as they are made."""

    def __init__(
        self, streams: Streams, events: AsyncGenerator[bytes, None], headers: Mapping[str, str]
    ) -> None:
        super().__init__()
        streams.require_room()
        self._streams = streams
        self._events = events
        self._wire = [(k.encode(), v.encode()) for k, v in (SSE_HEADERS | dict(headers)).items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them (ASGI), until the reader goes, the server stops, or the time is over."""
        await send({"type": "http.response.start", "status": 200, "headers": self._wire})
        with self._streams.one():
            if not await self._streams.run(
                self._send_all(send), _until(receive, "http.disconnect")
            ):
                end: Message = {"type": "http.response.body", "body": b"", "more_body": False}
                await _last(send, end)

    async def _send_all(self, send: Send) -> None:
        async with contextlib.aclosing(self._events) as events:
            async for body in events:
                async with asyncio.timeout(SEND_S_MAX):
                    await send({"type": "http.response.body", "body": body, "more_body": True})


class Socket:
    """A WebSocket that sends texts, and takes what comes in by `taken`."""

    def __init__(
        self, streams: Streams, scope: WebSocketScope, receive: Receive, send: Send
    ) -> None:
        streams.require_room()
        self._streams = streams
        self._scope = scope
        self._receive = receive
        self._send = send

    async def run(
        self,
        texts: AsyncGenerator[str, None],
        taken: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Send until the other end goes, the server stops, or the time is over."""
        if (await self._receive())["type"] != "websocket.connect":
            return
        await self._send(
            {
                "type": "websocket.accept",
                "subprotocol": None,
                "headers": [(b"cache-control", b"no-store")],
            }
        )
        with self._streams.one():
            if not await self._streams.run(self._send_all(texts), self._take_all(taken)):
                code = GOING_AWAY if self._streams.ending.is_set() else TRY_AGAIN
                await _last(self._send, {"type": "websocket.close", "code": code, "reason": ""})

    async def _send_all(self, texts: AsyncGenerator[str, None]) -> None:
        async with contextlib.aclosing(texts) as all_texts:
            async for text in all_texts:
                async with asyncio.timeout(SEND_S_MAX):
                    await self._send({"type": "websocket.send", "text": text, "bytes": None})

    async def _take_all(self, taken: Callable[[str], Awaitable[None]] | None) -> None:
        while (event := await self._receive())["type"] != "websocket.disconnect":
            text = event.get("text") if event["type"] == "websocket.receive" else None
            if taken is not None and text is not None:
                await taken(text)


async def deny(scope: WebSocketScope, send: Send, problem: Problem) -> None:
    """Answer a handshake with a problem document."""
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send(
            {"type": "websocket.close", "code": POLICY_VIOLATION, "reason": problem.detail[:100]}
        )
        return
    answer = problem_answer(problem, scope["path"])
    wire = [(b"content-type", b"application/problem+json")]
    wire += [(k.encode(), v.encode()) for k, v in problem.headers.items()]
    for message in (
        {"type": "websocket.http.response.start", "status": problem.status, "headers": wire},
        {"type": "websocket.http.response.body", "body": answer.body, "more_body": False},
    ):
        await send(cast(Message, message))


async def _last(send: Send, message: Message) -> None:
    """Send what ends it, unless the other end takes nothing."""
    with contextlib.suppress(TimeoutError, OSError):
        async with asyncio.timeout(END_S_MAX):
            await send(message)


async def _until(receive: Receive, kind: str) -> None:
    while (await receive())["type"] != kind:
        pass

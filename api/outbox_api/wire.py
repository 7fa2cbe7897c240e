"""HTTP/1.1 by uvicorn and httptools, with limits on a request's head, which they have none of.

Who opens a connection and says nothing, or says it byte by byte, is cut off; a head without an
end is refused. Bodies are limited where they are read (`outbox_api.requests`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterator
from http import HTTPStatus

import msgspec
import uvicorn
from litestar.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S_MAX = 10.0
"""From a connection's start, or a request's first byte, to the end of its head."""
HEAD_BYTES_MAX = 65_536
IDLE_S_MAX = 75
"""Of a connection between two requests: longer than load balancers keep theirs (60 s), so that
it is they who close, never we under a request that is on its way.
"""
GRACE_S_MAX = 30
"""For requests under way when the server stops."""
WEBSOCKET_BYTES_MAX = 16_384
"""Of a message that a client sends: they have little to say."""


def _is_a_fault(record: logging.LogRecord) -> bool:
    """Tell it from a handshake that we answered with a problem document, as uvicorn does not."""
    return "without completing handshake" not in record.getMessage()


logging.getLogger("uvicorn.error").addFilter(_is_a_fault)


class GuardedProtocol(HttpToolsProtocol):
    """One connection."""

    _in_head = True
    _refused = False
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self.access_log = False  # whatever handlers the process's root logger has
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio.Protocol."""
        self._forget_head()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._refused:
            return
        super().data_received(data)
        if self._in_head and not self._refused:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(431, f"The head of a request has at most {HEAD_BYTES_MAX} bytes.")

    def on_message_begin(self) -> None:
        """See httptools."""
        super().on_message_begin()
        self._in_head = True
        self._head_bytes = 0
        if self._head_timer is None:
            self._await_head()

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._in_head = False
        self._forget_head()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg)

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_S_MAX, self.transport.close)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, status: int, detail: str) -> None:
        """Answer a problem document, and hear no more: the next request's start is unknown.

        The client closes, or is cut off in time: to close at once, while it still sends, would
        reset the connection and lose it our answer.
        """
        self._refused = True
        title = HTTPStatus(status).phrase
        body = msgspec.json.encode(
            {"type": "about:blank", "title": title, "status": status, "detail": detail}
        )
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n%b"
            % (status, title.encode(), len(body), body)
        )
        self.transport.write_eof()
        self._forget_head()
        self._await_head()


class Server(uvicorn.Server):
    """Serves an app on a socket that listens already; signals are the caller's.

    The caller opens and closes the app's lifespan.
    """

    def __init__(self, app: ASGIApp, on_open: Callable[[], None]) -> None:
        """`on_open` is called once requests are taken."""
        super().__init__(
            uvicorn.Config(
                app,
                http=GuardedProtocol,
                ws="websockets-sansio",
                ws_max_size=WEBSOCKET_BYTES_MAX,
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=IDLE_S_MAX,
                timeout_graceful_shutdown=GRACE_S_MAX,
            )
        )
        self._on_open = on_open

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        self._on_open()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

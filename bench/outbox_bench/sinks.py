"""An SMTP server and an HTTP server that take anything, as small as they can be."""

from __future__ import annotations

import asyncio
import signal
from typing import cast

import uvloop

from outbox_bench.child import Line
from outbox_bench.orders import Ports


class MailSink(asyncio.Protocol):
    """An SMTP server that says yes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio's by duck typing alone.
        self.transport = cast(asyncio.Transport, transport)
        self.pending, self.in_body = b"", False
        self.transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        self.pending += data
        if self.in_body:
            if self.pending.endswith(b"\r\n.\r\n"):
                self.pending, self.in_body = b"", False
                self.transport.write(b"250 2.0.0 Ok: queued as 1\r\n")
            return
        if not self.pending.endswith(b"\r\n"):
            return
        command, self.pending = self.pending[:4].upper(), b""
        if command == b"DATA":
            self.in_body = True
            self.transport.write(b"354 go on\r\n")
        elif command == b"EHLO":
            self.transport.write(b"250-sink\r\n250-SMTPUTF8\r\n250 SIZE 35882577\r\n")
        else:
            self.transport.write(b"250 2.0.0 Ok\r\n")


class HookSink(asyncio.Protocol):
    """An HTTP server that answers 200 to every request with a Content-Length."""

    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.pending = cast(asyncio.Transport, transport), b""

    def data_received(self, data: bytes) -> None:
        self.pending += data
        head, found, body = self.pending.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) >= length:
            self.pending = body[length:]
            self.transport.write(self.reply)


def serve(line: Line) -> None:
    """Listen on free ports of 127.0.0.1 until SIGTERM."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, stopped.set)
        smtp = await loop.create_server(MailSink, "127.0.0.1", 0)
        http = await loop.create_server(HookSink, "127.0.0.1", 0)
        line.tell(Ports(smtp=_port(smtp), http=_port(http)))
        await stopped.wait()

    line.end_with_parent()
    uvloop.run(run())


def _port(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])

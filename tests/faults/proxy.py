"""A TCP proxy before Postgres that cuts connections, delays them, or swallows replies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Forwards bytes; `cut` ends every connection, `mute` drops what the server says."""

    def __init__(self, url: str) -> None:
        self._target = urlsplit(url)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.muted = False
        self.swallowed_bytes = 0
        self.delay_s = 0.0
        self.refusing = False

    @property
    def url(self) -> str:
        """The same URL, through this proxy."""
        assert self._server is not None
        port = self._server.sockets[0].getsockname()[1]
        login = self._target.netloc.rpartition("@")[0]
        return urlunsplit(self._target._replace(netloc=f"{login}@127.0.0.1:{port}"))

    def mute(self) -> None:
        """From now on requests arrive and are carried out, but no reply comes back."""
        self.muted = True

    def cut(self) -> None:
        """End all connections now; new ones are welcome."""
        self.muted = False
        for writer in list(self._writers):
            writer.transport.abort()

    async def start(self) -> None:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)

    async def stop(self) -> None:
        """Close everything."""
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        if self.refusing:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(
                self._target.hostname, self._target.port
            )
            self._writers |= {writer, up_writer}
            await asyncio.wait(
                {
                    asyncio.create_task(self._pump(reader, up_writer, from_server=False)),
                    asyncio.create_task(self._pump(up_reader, writer, from_server=True)),
                },
                return_when=asyncio.FIRST_COMPLETED,
            )
            for each in (writer, up_writer):
                each.transport.abort()
            self._writers -= {writer, up_writer}
        except OSError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, from_server: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if from_server and self.muted:
                    self.swallowed_bytes += len(data)
                    continue
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()


@contextlib.asynccontextmanager
async def proxied(url: str) -> AsyncIterator[Proxy]:
    """Yield a running proxy before `url`."""
    proxy = Proxy(url)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()

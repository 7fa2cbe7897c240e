"""The parent's side of one worker process: start it, talk to it, see it end.

A subprocess of our own with a socket pair, rather than asyncio's subprocesses: one descriptor,
no watcher thread, and the same behaviour on every event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Literal, TypeAlias, cast

import msgspec

from outbox.render.wire import (
    EXIT_MEMORY,
    FRAME_BYTES_MAX,
    FRAME_HEADER,
    PROGRESS,
    Answer,
    Frame,
    Limits,
)

START_S_MAX = 30.0

End: TypeAlias = Literal["time", "memory", "died"]

_ENVIRONMENT_KEPT = ("LD_LIBRARY_PATH", "PYTHONHOME", "SYSTEMROOT")

_DECODER = msgspec.msgpack.Decoder(list[Answer])
_ENCODER = msgspec.msgpack.Encoder()


def _environment() -> dict[str, str]:
    """Return what Python needs to start, and nothing else: templates must not meet secrets."""
    kept = {name: os.environ[name] for name in _ENVIRONMENT_KEPT if name in os.environ}
    paths = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
    return {**kept, "PYTHONPATH": paths, "LC_ALL": "C.UTF-8"}


def _make_page() -> int:
    """Return a descriptor of one page that two processes can map; it needs no writable disk."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("outbox-render")
    else:
        descriptor, path = tempfile.mkstemp()
        os.unlink(path)
    os.truncate(descriptor, mmap.PAGESIZE)
    return descriptor


class WorkerProcess(asyncio.Protocol):
    """A running worker. `on_answers` and `on_end` are called in the event loop."""

    def __init__(
        self,
        on_answers: Callable[[WorkerProcess, list[Answer]], None],
        on_end: Callable[[WorkerProcess], None],
    ) -> None:
        self._on_answers = on_answers
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._received = bytearray()
        self._process: subprocess.Popen[bytes] | None = None
        self._progress: mmap.mmap | None = None
        self._transport: asyncio.Transport | None = None

    async def start(self, limits: Limits) -> None:
        """Return when the worker takes frames. Raises OSError or TimeoutError if it won't."""
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._spawn(theirs.fileno(), limits)
            await self._loop.create_unix_connection(lambda: self, sock=ours)
        except BaseException:
            ours.close()
            self._reap()
            self._close_page()
            raise
        try:
            async with asyncio.timeout(START_S_MAX):
                await self._ready
        except BaseException:
            await self.stop()
            raise

    def _spawn(self, socket_fd: int, limits: Limits) -> None:
        with contextlib.ExitStack() as stack:
            page_fd = _make_page()
            stack.callback(os.close, page_fd)
            self._progress = mmap.mmap(page_fd, mmap.PAGESIZE)
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-P", "-m", "outbox.render.worker"),
                    *(str(number) for number in (socket_fd, page_fd, os.getpid())),
                    msgspec.json.encode(limits).decode(),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(socket_fd, page_fd),
                cwd="/",
                env=_environment(),
                start_new_session=True,  # a terminal's Ctrl-C is the parent's to handle
            )

    @property
    def pid(self) -> int:
        """The process id, for tests and logs."""
        assert self._process is not None
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._ended.done()

    def send(self, frame: Frame) -> None:
        """Queue a frame; the worker answers each of its works, in order."""
        assert self._transport is not None
        body = _ENCODER.encode(frame)
        self._transport.write(FRAME_HEADER.pack(len(body)) + body)

    def progress(self) -> tuple[int, int]:
        """Return how many works the worker has begun and ended over its life.

        They differ by one while it is busy. What a broken worker writes there is not trusted.
        """
        assert self._progress is not None
        begun, ended = PROGRESS.unpack_from(self._progress)
        return begun, ended

    def end(self) -> End:
        """Return what ended a worker that has ended."""
        assert self._process is not None
        if self._process.returncode == -signal.SIGPROF:
            return "time"
        return "memory" if self._process.returncode == EXIT_MEMORY else "died"

    def kill(self) -> None:
        """End the process now; `on_end` follows."""
        assert self._process is not None
        self._process.kill()

    async def stop(self) -> None:
        """End the process and wait until nothing is left of it."""
        self.kill()
        await asyncio.shield(self._ended)

    def _close_page(self) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # uvloop's transports are asyncio's by duck typing alone.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Pass on the answers that are complete."""
        self._received += data
        received, at = self._received, 0
        while len(received) - at >= FRAME_HEADER.size:
            (size_bytes,) = FRAME_HEADER.unpack_from(received, at)
            start, end = at + FRAME_HEADER.size, at + FRAME_HEADER.size + size_bytes
            if size_bytes > FRAME_BYTES_MAX:
                self.kill()
                return
            if len(received) < end:
                break
            with memoryview(received) as view, view[start:end] as body:
                try:
                    answers = _DECODER.decode(body)
                except msgspec.MsgspecError:
                    self.kill()
                    return
            at = end
            self._take(answers)
        del received[:at]

    def _take(self, answers: list[Answer]) -> None:
        if self._ready.done():
            self._on_answers(self, answers)
        else:
            self._ready.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take leave of a process that has ended, or is not to be trusted any more."""
        self._reap()
        if self._ready.done():
            self._on_end(self)
        else:
            code = None if self._process is None else self._process.returncode
            self._ready.set_exception(OSError(f"a render process ended at start, code {code}"))
            self._ready.exception()  # nobody may be waiting any more
        self._close_page()
        if not self._ended.done():
            self._ended.set_result(None)

    def _reap(self) -> None:
        if self._process is not None:
            self._process.kill()
            # The socket closes after the memory is freed, just before the process is gone, or
            # else it was killed a line ago: this does not block for long.
            self._process.wait()

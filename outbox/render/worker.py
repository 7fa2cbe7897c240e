"""A worker process: reads frames of works from a socket, renders, answers. One thread, no loop.

    python -m outbox.render.worker SOCKET_FD PROGRESS_FD PARENT_PID LIMITS_JSON

It bounds itself, so that the bounds hold while no Python code runs:
- CPU time of a work: an ITIMER_PROF whose signal ends the process, inside C code too. It counts
  the process's own time, so a busy machine fails nobody.
- memory: RLIMIT_DATA. Running out of it ends the process with EXIT_MEMORY.
Before each work its ordinal is written to a page shared with the parent, and after it again: so
the parent knows whom a death hit, at the cost of two stores. Answers that were not sent yet are
lost with the process, and their works are done again by the next one (rendering changes nothing).
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import resource
import signal
import socket
import sys
import time

import msgspec

from outbox.render.engine import Engine
from outbox.render.wire import (
    EXIT_MEMORY,
    FRAME_HEADER,
    PROGRESS,
    Answer,
    Frame,
    Limits,
    Rendered,
)

FLUSH_S = 0.005
FLUSH_BYTES = 256 * 1024
_FILES_MAX = 32
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38


class _Answers:
    """Answers on their way out: together, but none waits for long, and not too many."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._encoder = msgspec.msgpack.Encoder()
        self._buffer = bytearray()
        self._waiting: list[Answer] = []
        self._waiting_chars = 0
        self._sent_at_s = 0.0

    def add(self, answer: Answer) -> None:
        self._waiting.append(answer)
        if type(answer) is Rendered:
            self._waiting_chars += len(answer.html or "") + len(answer.text or "")
        overdue = time.monotonic() - self._sent_at_s > FLUSH_S
        if overdue or self._waiting_chars > FLUSH_BYTES:
            self.send()

    def send(self) -> None:
        self._encoder.encode_into(self._waiting, self._buffer, FRAME_HEADER.size)
        FRAME_HEADER.pack_into(self._buffer, 0, len(self._buffer) - FRAME_HEADER.size)
        self._waiting.clear()
        self._waiting_chars = 0
        self._channel.sendall(self._buffer)
        self._sent_at_s = time.monotonic()


def _receive(channel: socket.socket, size_bytes: int) -> bytearray | None:
    """Return exactly so many bytes, or None when the parent has closed its end."""
    received = bytearray(size_bytes)
    view = memoryview(received)
    while view:
        count = channel.recv_into(view)
        if count == 0:
            return None
        view = view[count:]
    return received


def _serve(channel: socket.socket, progress: mmap.mmap, limits: Limits) -> None:
    engine = Engine(output_bytes_max=limits.output_bytes_max)
    decoder = msgspec.msgpack.Decoder(Frame)
    answers = _Answers(channel)
    answers.send()  # ready
    done = 0
    while (header := _receive(channel, FRAME_HEADER.size)) is not None:
        body = _receive(channel, FRAME_HEADER.unpack(header)[0])
        if body is None:
            return
        frame = decoder.decode(body)
        engine.learn(frame)
        for work in frame.works:
            PROGRESS.pack_into(progress, 0, done + 1, done)
            signal.setitimer(signal.ITIMER_PROF, limits.time_s_max)
            answer = engine.perform(work)
            done += 1
            PROGRESS.pack_into(progress, 0, done, done)
            answers.add(answer)
        signal.setitimer(signal.ITIMER_PROF, 0)
        engine.forget(frame)
        answers.send()


def _confine(limits: Limits) -> None:
    """Give up what rendering does not need. The parent has already emptied the environment."""
    memory_bytes = limits.memory_bytes_max
    for kind, most in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_CORE, 0),  # a dump would hold personal data
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _FILES_MAX),
        (resource.RLIMIT_NPROC, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def _follow(parent_pid: int) -> None:
    """End with the parent, however it ends."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(0)  # it died before we could ask to be told


def main(arguments: list[str]) -> None:
    """Run until the parent closes its end of the socket."""
    socket_fd, progress_fd, parent_pid = (int(argument) for argument in arguments[:3])
    limits = msgspec.json.decode(arguments[3], type=Limits)
    _follow(parent_pid)
    progress = mmap.mmap(progress_fd, mmap.PAGESIZE)
    os.close(progress_fd)
    _confine(limits)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=socket_fd) as channel:
        try:
            _serve(channel, progress, limits)
        except MemoryError:
            os._exit(EXIT_MEMORY)
        except (BrokenPipeError, ConnectionResetError):
            os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])

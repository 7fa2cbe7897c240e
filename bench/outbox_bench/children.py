"""Processes that take part in a benchmark: started, ready, let go, stopped.

    parent: Child(order) ─► child: … tell("ready") ─► parent: go() ─► child: tell(result)

What a child tells is a JSON line on its stdout. It ends when its stdin does, so with its parent.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from outbox_bench.orders import Order

READY_S_MAX = 60.0
ANSWER_S_MAX = 900.0
STOP_S_MAX = 20.0

T = TypeVar("T")


class ChildFailed(Exception):
    """A child ended, or did not answer. What it had to say is on stderr."""


class Child:
    """One process. Use as a context manager; it is gone afterwards."""

    def __init__(self, order: Order) -> None:
        self._name = type(order).__name__
        self._received = b""
        self._process = subprocess.Popen(
            # -P: whatever lies in the working directory is none of our modules.
            [
                sys.executable,
                "-P",
                "-m",
                "outbox_bench.child",
                msgspec.json.encode(order).decode(),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def go(self) -> None:
        """Let it begin."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def ready(self, kind: type[T]) -> T:
        """Wait for the first thing that it tells."""
        return self.told(kind, within_s=READY_S_MAX)

    def told(self, kind: type[T], *, within_s: float = ANSWER_S_MAX) -> T:
        """Wait for the next thing that it tells. Raises ChildFailed."""
        deadline = time.monotonic() + within_s
        while b"\n" not in self._received:
            self._receive(deadline)
        line, _, self._received = self._received.partition(b"\n")
        return msgspec.json.decode(line, type=kind)

    def _receive(self, deadline: float) -> None:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        left_s = max(0.0, deadline - time.monotonic())
        if not select.select([descriptor], [], [], left_s)[0]:
            raise ChildFailed(f"{self._name} did not answer in time")
        received = os.read(descriptor, 65_536)
        if not received:
            raise ChildFailed(f"{self._name} ended with code {self._process.wait()}")
        self._received += received

    def stop(self) -> None:
        """Ask it to end, wait until it has, and kill it where it does not."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def first_told(children: Sequence[Child], kind: type[T], *, within_s: float) -> T:
    """Return the next thing that any of them tells."""
    deadline = time.monotonic() + within_s
    while True:
        for child in children:
            if b"\n" in child._received:
                return child.told(kind)
        waiting = {child._process.stdout.fileno(): child for child in children}  # type: ignore[union-attr]
        left_s = max(0.0, deadline - time.monotonic())
        readable = select.select(list(waiting), [], [], left_s)[0]
        if not readable:
            raise ChildFailed("nobody answered in time")
        for descriptor in readable:
            waiting[descriptor]._receive(deadline)


def _environment() -> dict[str, str]:
    """Return ours, without settings of the service that somebody's shell may have."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OUTBOX_")}

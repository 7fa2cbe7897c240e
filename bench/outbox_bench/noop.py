"""A dispatcher whose handler does nothing: what is left is what the engine costs."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import uvloop

from outbox.logging_setup import configure_logging
from outbox.message import Message
from outbox.outcome import Delivered, Outcome, Retryable
from outbox_bench.child import Line
from outbox_bench.orders import DispatchNoop, Ready, Stamp
from outbox_dispatcher.service import Dispatcher
from outbox_dispatcher.settings import DispatcherSettings

QUEUE = "noop"
FAILS = b'"fails": true}'


class Noop:
    """Delivers everything at once, or after `work_ms`; `on_start` gets to know of each."""

    def __init__(
        self, on_start: Callable[[Message], None] | None = None, *, work_ms: float = 0.0
    ) -> None:
        self._on_start = on_start
        self._work_s = work_ms / 1000

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Do nothing, successfully."""
        if self._on_start is not None:
            self._on_start(message)
        if self._work_s:
            await asyncio.sleep(self._work_s)
        return Delivered()


class Failing(Noop):
    """Fails for the time being where the payload says so."""

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Look at the payload's last member."""
        if message.payload_json is not None and message.payload_json.endswith(FAILS):
            return Retryable(code="told", reason="the payload says so", retry_after_s=0.5)
        return Delivered()


def _handler(order: DispatchNoop, stamp: Callable[[Message], None]) -> Noop:
    if order.may_fail:
        return Failing()
    return Noop(stamp if order.stamps else None, work_ms=order.work_ms)


def dispatch_noop(order: DispatchNoop, line: Line) -> None:
    """Dispatch until SIGTERM."""

    def stamp(message: Message) -> None:
        line.tell(Stamp(str(message.key), time.time_ns()))

    async def run() -> None:
        dispatcher = Dispatcher(
            DispatcherSettings(database_url=order.url, queues=frozenset({QUEUE})),
            channels={},
            queues={QUEUE: _handler(order, stamp)},
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, dispatcher.stop)
        running = asyncio.create_task(dispatcher.run())
        ready = asyncio.create_task(dispatcher.ready.wait())
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if dispatcher.ready.is_set():
            line.tell(Ready())
        ready.cancel()
        await running

    configure_logging(level="warning", log_format="console", process="bench")
    line.end_with_parent()
    uvloop.run(run())

"""A dispatcher process for fault tests: it delivers by writing a line into a file.

    python -m tests.faults.worker URL DELIVERIES [--direct-url URL] [--block FILE]
        [--lease-s S] [--concurrency N] [--shift-clock S]

`--block`: after the line is written, the delivery hangs until FILE exists, so that a test can
strike between deliver and record. A payload `{"poison": true}` kills the process, `{"fails": n}`
fails n times.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from outbox.message import Message
from outbox.outcome import Delivered, Outcome, Retryable
from outbox_dispatcher.service import Dispatcher
from outbox_dispatcher.settings import DispatcherSettings


class FileReceiver:
    """The receiver of all deliveries: `job_id pid` a line, written whole."""

    def __init__(self, deliveries: Path, block: Path | None) -> None:
        self._deliveries = deliveries
        self._block = block

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
        with self._deliveries.open("ab", buffering=0) as file:
            file.write(f"{message.key} {os.getpid()}\n".encode())
        payload = msgspec.json.decode(message.payload_json or b"{}")
        if payload.get("poison"):
            os.kill(os.getpid(), signal.SIGKILL)
        if "slow_s" in payload:
            await asyncio.sleep(payload["slow_s"])
        while self._block is not None and not self._block.exists():
            await asyncio.sleep(0.01)
        if message.attempt <= payload.get("fails", 0):
            return Retryable(code="busy", reason="as told", retry_after_s=0.0)
        return Delivered()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("deliveries", type=Path)
    parser.add_argument("--direct-url")
    parser.add_argument("--block", type=Path)
    parser.add_argument("--lease-s", type=float, default=60.0)
    parser.add_argument("--concurrency", type=int, default=10)
    parser.add_argument("--shift-clock", type=float, default=0.0)
    arguments = parser.parse_args()
    if arguments.shift_clock:
        real_time, real_ns = time.time, time.time_ns
        time.time = lambda: real_time() + arguments.shift_clock
        time.time_ns = lambda: real_ns() + int(arguments.shift_clock * 1e9)
    settings = DispatcherSettings(
        database_url=arguments.url,
        direct_database_url=arguments.direct_url,
        lease_s=arguments.lease_s,
        timeout_s=min(30.0, arguments.lease_s / 2),
        concurrency={"work": arguments.concurrency},
    )
    handler = FileReceiver(arguments.deliveries, arguments.block)
    dispatcher = Dispatcher(settings, channels={}, queues={"work": handler})

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, dispatcher.stop)
        await dispatcher.run()

    asyncio.run(run())


if __name__ == "__main__":
    main()

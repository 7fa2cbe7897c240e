"""The receiver of chaos runs: a real HTTP server that writes down every key it gets.

What it answers is in the job's own data: `fail` requests get a 503 first, `reject` is refused for
good, `slow_s` takes its time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import msgspec
from aiohttp import web

from tests.faults.checker import Received


class Receiver:
    """Its log, and its address."""

    def __init__(self) -> None:
        self.log: list[Received] = []
        self.url = ""
        self._seen: Counter[str] = Counter()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        key = request.headers["webhook-id"]
        data = msgspec.json.decode(await request.read())["data"]
        self._seen[key] += 1
        status = 200
        if data.get("reject"):
            status = 400
        elif self._seen[key] <= data.get("fail", 0):
            status = 503
        # Written down before the answer: whoever dies in between has delivered.
        self.log.append(Received(key, data["order"], status == 200, datetime.now(UTC)))
        await asyncio.sleep(data.get("slow_s", 0))
        return web.Response(status=status)


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Run a receiver on a free port."""
    receiver = Receiver()
    runner = web.ServerRunner(web.Server(receiver.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()

"""Load on a service from a host of its own: clients that never try again, and a receiver.

    python -m tests.deploy.load URL ADDRESS [--clients N] [--pause S] [--again]

Each client keeps a connection open and posts one webhook job after the other, through whatever
stands before the API; the receiver of these webhooks listens at ADDRESS. It prints the receiver's
URL, posts until its stdin ends, receives until a second line, and prints what was seen, as JSON.
With `--again`, a post without a 202 is sent again, under the same id, until it has one.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from datetime import UTC, datetime
from random import Random
from uuid import uuid4

import aiohttp
import msgspec
from aiohttp import web

from tests.faults.checker import Received
from tests.faults.receiver import Receiver

KEY = "rehearsal-admin-key"
AGAIN_S = 0.1
TIMEOUT_S = 30


class Posted(msgspec.Struct):
    """One request. `status` 0: no answer came. `at`, `took_s`: on a monotonic clock."""

    job_id: str
    status: int
    at: float
    took_s: float
    error: str = ""


class Seen(msgspec.Struct):
    """All that a run of load saw."""

    posted: list[Posted]
    received: list[Received]


class Client:
    """Posts over one connection that it keeps."""

    def __init__(self, url: str, receiver_url: str, log: list[Posted], draw: Random) -> None:
        self._url = f"{url}/api/v1/jobs"
        self._receiver_url = receiver_url
        self._log = log
        self._draw = draw

    async def run(self, stop: asyncio.Event, *, pause_s: float, again: bool) -> None:
        """Post until told to stop."""
        async with aiohttp.ClientSession(
            headers={"authorization": f"Bearer {KEY}"},
            connector=aiohttp.TCPConnector(limit=1),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        ) as session:
            while not stop.is_set():
                job = self._job()
                while await self._post(session, job) != 202 and again:
                    await asyncio.sleep(AGAIN_S)
                await asyncio.sleep(self._draw.uniform(0, 2 * pause_s))

    def _job(self) -> dict[str, object]:
        job_id = str(uuid4())
        # Most are quick; some still run when a dispatcher is told to stop.
        slow_s = self._draw.choice((0, 0, 0, 0.02, 0.02, 0.3, 1.5))
        return {
            "job_id": job_id,
            "channel": "webhook",
            "to": self._receiver_url,
            "created_at": datetime.now(UTC).isoformat(),
            "data": {"order": job_id, "slow_s": slow_s},
            "meta": {"event_type": "order"},
        }

    async def _post(self, session: aiohttp.ClientSession, job: dict[str, object]) -> int:
        began = time.monotonic()
        status, error = 0, ""
        try:
            async with session.post(self._url, json=job) as answer:
                text = await answer.text()
                status = answer.status
                if status != 202:
                    error = text[:200]
        except (aiohttp.ClientError, TimeoutError) as lost:
            error = repr(lost)
        took_s = time.monotonic() - began
        self._log.append(Posted(str(job["job_id"]), status, began, took_s, error))
        return status


async def run(url: str, address: str, clients: int, pause_s: float, *, again: bool) -> Seen:
    """Post and receive until told to stop."""
    lines: asyncio.StreamReader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    receiver = Receiver()
    runner = web.ServerRunner(web.Server(receiver.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, address, 0).start()
    receiver.url = f"http://{address}:{runner.addresses[0][1]}/hook"
    print(receiver.url, flush=True)
    posted: list[Posted] = []
    stop = asyncio.Event()
    posting = [
        asyncio.create_task(
            Client(url, receiver.url, posted, Random(n)).run(stop, pause_s=pause_s, again=again)
        )
        for n in range(clients)
    ]
    await lines.readline()
    stop.set()
    await asyncio.gather(*posting)
    print("posted", flush=True)
    await lines.readline()
    await runner.cleanup()
    return Seen(posted, receiver.log)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("address")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--pause", type=float, default=0.05)
    parser.add_argument("--again", action="store_true")
    asked = parser.parse_args()
    seen = asyncio.run(
        run(asked.url, asked.address, asked.clients, asked.pause, again=asked.again)
    )
    print(msgspec.json.encode(seen).decode(), flush=True)


if __name__ == "__main__":
    main()

"""Producers of chaos runs: they hand jobs in at three doors, and roll back at random.

A producer knows that a job is committed when it was told so, and that it is not when it has never
asked for it. In between, after a lost answer, it hands the same job in again, or leaves it open.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import UTC, datetime
from random import Random
from uuid import UUID

import httpx
import msgspec
import psycopg

import outbox
from tests.faults.checker import Handed, Said

PAUSE_S = 0.05
AGAIN_S = 0.2
AGAIN_MAX = 40


class Producer:
    """One producer, at one door, with a log of its own."""

    def __init__(self, door: str, database_url: str, api_url: str, receiver: str, draw: Random):
        self._door = door
        self._url = database_url
        self._api_url = api_url
        self._receiver = receiver
        self._draw = draw
        self.log: list[Handed] = []

    async def run(self, until: asyncio.Event) -> None:
        """Hand jobs in until told to stop."""
        while not until.is_set():
            jobs = [self._job() for _ in range(self._draw.choice((1, 1, 1, 3, 8)))]
            rolls_back = self._door != "http" and self._draw.random() < 0.25
            said = await self._hand_in(jobs, rolls_back=rolls_back)
            tries_left = AGAIN_MAX if self._draw.random() < 0.8 else 0
            while said == "unknown" and tries_left:
                tries_left -= 1
                await asyncio.sleep(AGAIN_S)
                if await self._hand_in(jobs, rolls_back=False) == "committed":
                    said = "committed"
            self.log += [Handed(UUID(str(job["job_id"])), said, _ends(job)) for job in jobs]
            await asyncio.sleep(self._draw.uniform(0, 2 * PAUSE_S))

    def _job(self) -> dict[str, object]:
        job_id = str(UUID(int=self._draw.getrandbits(128), version=4))
        data: dict[str, object] = {"order": job_id}
        dice = self._draw.random()
        if dice < 0.1:
            data["fail"] = self._draw.choice((1, 2))
        elif dice < 0.15:
            data["reject"] = True
        elif dice < 0.4:
            data["slow_s"] = round(self._draw.uniform(0.01, 0.6), 3)
        elif dice < 0.5:
            data["slow_s"] = 1.5
        return {
            "job_id": job_id,
            "channel": "webhook",
            "to": self._receiver,
            "created_at": datetime.now(UTC).isoformat(),
            "data": data,
            "meta": {"event_type": "order", "priority": self._draw.choice(("normal", "high"))},
        }

    async def _hand_in(self, jobs: list[dict[str, object]], *, rolls_back: bool) -> Said:
        if self._door == "http":
            return await self._post(jobs)
        asked = False
        try:
            async with contextlib.AsyncExitStack() as stack:
                connection = await psycopg.AsyncConnection.connect(self._url, connect_timeout=5)
                stack.push_async_callback(connection.close)
                for job in jobs:
                    if self._door == "python":
                        await outbox.enqueue(connection, job)
                    else:
                        text = msgspec.json.encode(job).decode()
                        await connection.execute("select outbox.enqueue(%s::jsonb)", (text,))
                if rolls_back:
                    await connection.rollback()
                    return "rolled back"
                asked = True
                await connection.commit()
                return "committed"
        except psycopg.OperationalError:
            return "unknown" if asked else "rolled back"

    async def _post(self, jobs: list[dict[str, object]]) -> Said:
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
                if len(jobs) == 1:
                    answer = await client.post(f"{self._api_url}/api/v1/jobs", json=jobs[0])
                else:
                    answer = await client.post(f"{self._api_url}/api/v1/jobs/batch", json=jobs)
        except httpx.HTTPError:
            return "unknown"
        if answer.is_success:
            return "committed"
        assert answer.status_code in (429, 500, 503), answer.text
        return "unknown"


def _ends(job: dict[str, object]) -> str:
    data = job["data"]
    assert isinstance(data, dict)
    return "failed" if data.get("reject") else "sent"

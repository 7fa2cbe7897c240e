"""A channel, `matrix`, and a handler for the queue `cache-purge`."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import aiohttp

from outbox.message import Message
from outbox.outcome import Delivered, Misconfigured, Outcome, Rejected, Retryable


class MatrixChannel:
    """Messages to Matrix rooms. Settings: `OUTBOX_PLUGIN_MATRIX_URL`, `…_TOKEN`."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        self.url = settings.get("PLUGIN_MATRIX_URL", "https://matrix.org")
        self.token = settings.get("PLUGIN_MATRIX_TOKEN", "")

    async def __aenter__(self) -> Self:
        self.http = aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.token}"})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.close()

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Send to the room `to`; the job's id as transaction id makes a repetition one event."""
        if not message.to:
            return Rejected(code="recipient.no_address", reason="User has no Matrix room")
        path = f"{self.url}/_matrix/client/v3/rooms/{message.to}/send/m.room.message/{message.key}"
        text = {"msgtype": "m.text", "body": message.text or ""}
        try:
            async with asyncio.timeout(timeout_s), self.http.put(path, json=text) as answer:
                told = await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            return Retryable(code="matrix.away", reason=type(error).__name__, ambiguous=True)
        if answer.status == 200:
            return Delivered(provider_message_id=json.loads(told)["event_id"])
        failure = Misconfigured if answer.status in (401, 403) else Retryable
        return failure(code=f"matrix.{answer.status}", reason=told)


class CachePurge(MatrixChannel):
    """The queue `cache-purge`: `{"payload": {"path": …}}` removes a file of the cache."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        super().__init__(settings)
        self.folder = Path(settings.get("PLUGIN_CACHE_DIR", "/var/cache/site")).resolve()

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Remove it; gone already is as good."""
        path = self.folder.joinpath(json.loads(message.payload_json or b"{}")["path"]).resolve()
        if not path.is_relative_to(self.folder) or path == self.folder:
            return Rejected(code="cache.path", reason="the path leads out of the cache")
        path.unlink(missing_ok=True)
        return Delivered()

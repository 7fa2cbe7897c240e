"""What moves: server-sent events that carry a rendered part of a page whenever it has changed.

Each open page asks the store at a steady pace, for as long as its browser listens.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable

from outbox.errors import StoreUnavailable
from outbox_api.dashboard.rendering import HEADERS
from outbox_api.live import EventStream
from outbox_api.problems import Problem
from outbox_api.requests import ApiRequest
from outbox_api.runtime import runtime_of

QUIET_S = 15.0

Part = Callable[[], Awaitable[str]]


def live_part(request: ApiRequest, name: str, part: Part, *, every_s: float) -> EventStream:
    """Answer one part of a page, again and again when it has changed. Raises Problem 503."""
    return EventStream(runtime_of(request).streams, _changes(name, part, every_s), HEADERS)


async def _changes(name: str, part: Part, every_s: float) -> AsyncGenerator[bytes, None]:
    told_s, last = time.monotonic(), ""
    while True:
        try:
            text = await part()
        except (Problem, StoreUnavailable):
            text = last
        if text != last:
            lines = "".join(f"data: {line}\n" for line in text.splitlines())
            told_s, last = time.monotonic(), text
            yield f"event: {name}\n{lines}\n".encode()
        elif time.monotonic() - told_s > QUIET_S:
            told_s = time.monotonic()
            yield b": still here\n\n"
        await asyncio.sleep(every_s)

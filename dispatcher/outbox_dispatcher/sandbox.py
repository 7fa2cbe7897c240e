"""Where test jobs go: the sink, on every channel and queue, whatever else is set up.

A test job's trouble is its own. It holds nothing but itself, counts against no destination, and is
told from real ones before any provider of the operator's or of its tenant's is looked at. Should
one reach a live provider all the same, that refuses it (outbox.channels.captured).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

import msgspec

from outbox.channels import Handler
from outbox.channels.registry import load_handlers
from outbox.channels.sink import SinkChannel
from outbox.message import Message
from outbox.outcome import Misconfigured, Outcome, Retryable
from outbox.store.engine import Claimed


class Contained:
    """A handler that sends nothing, whose outcomes concern the job alone."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __aenter__(self) -> Self:
        await self._handler.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._handler.__aexit__(kind, error, trace)

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Keep one message, or fail as its magic recipient asks."""
        return contained(await self._handler.deliver(message, timeout_s=timeout_s))


class Sandbox:
    """The handlers of test jobs: those of OUTBOX_MODE=sandbox."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        handlers = load_handlers({**settings, "MODE": "sandbox"})
        self._handlers = {name: Contained(handler) for name, handler in handlers.items()}
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        for handler in self._handlers.values():
            await self._stack.enter_async_context(handler)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    def handler_of(self, claimed: Claimed) -> Handler:
        """Return what keeps a test job; a queue's payload is kept as it is."""
        name = claimed.channel or claimed.queue
        return self._handlers.get(name) or Contained(SinkChannel(name))


def contained(outcome: Outcome) -> Outcome:
    """Return the outcome with nothing in it that others would have to wait for."""
    if isinstance(outcome, Misconfigured):
        return msgspec.structs.replace(outcome, scope="job", scope_key="")
    if isinstance(outcome, Retryable):
        return msgspec.structs.replace(outcome, scope="job")
    return outcome

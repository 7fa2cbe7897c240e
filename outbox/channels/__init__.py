"""Channels: one protocol, found by entry points, so that anybody can add one.

A handler knows the message, never the store, and has no retry loop in it: it answers with an
`Outcome` and the dispatcher does the rest. An exception that it lets out counts as Retryable.

Entry points (group `outbox.channels` for channels, `outbox.queues` for queues that carry a
`payload`) name a class; it is made once per dispatcher process with the providers' settings:
`factory(settings)`, entered as an async context manager, and left when the dispatcher stops.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from outbox.message import Message
from outbox.outcome import Outcome


class Handler(Protocol):
    """What delivers messages of one channel, or of one queue."""

    async def __aenter__(self) -> Self:
        """Open pools and sessions. Called once, in the dispatcher's event loop."""
        ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close them again."""
        ...

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Deliver one message. The dispatcher cancels it after `timeout_s`."""
        ...


class HandlerFactory(Protocol):
    """The class that an entry point names."""

    def __call__(self, settings: Mapping[str, str]) -> Handler:
        """Make the handler from the process's `OUTBOX_…` settings (names without the prefix)."""
        ...

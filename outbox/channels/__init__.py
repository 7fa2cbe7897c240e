"""Channels: one protocol, found by entry points, so that anybody can add one.

A handler knows the message, never the store, and has no retry loop in it: it answers with an
`Outcome` and the dispatcher does the rest. An exception that it lets out counts as Retryable.

What takes long may say how far it has come: see `Progress`.

Entry points (group `outbox.channels` for channels, `outbox.queues` for queues that carry a
`payload`) name a class; it is made once per dispatcher process with the providers' settings:
`factory(settings)`, entered as an async context manager, and left when the dispatcher stops.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from outbox.message import Message
from outbox.outcome import Outcome


class Progress(Protocol):
    """What a handler whose `deliver` takes `progress` is given, to say how far an attempt is."""

    def __call__(self, done: float, total: float = 1.0, text: str = "") -> None:
        """Say that `done` of `total` is done, and in 200 characters of what: no address in it.

        As often as you like, from any thread: the last report is written, at most once a second,
        and only while the attempt's lease stands. More than `total` counts as `total`. Raises
        ValueError for a number that is negative or not finite, or a `total` that is not above 0.
        """
        ...


def no_progress(done: float, total: float = 1.0, text: str = "") -> None:
    """Take a report and forget it: the default of `progress`, for who calls a handler himself."""


def takes_progress(handler: type) -> bool:
    """Tell whether a class of handlers wants to report: its `deliver` has the parameter."""
    try:
        return "progress" in inspect.signature(getattr(handler, "deliver")).parameters  # noqa: B009
    except (AttributeError, TypeError, ValueError):
        return False


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
        """Deliver one message. The dispatcher cancels it after `timeout_s`.

        With one more parameter, `progress: Progress = no_progress`, it may report its progress.
        """
        ...


class HandlerFactory(Protocol):
    """The class that an entry point names."""

    def __call__(self, settings: Mapping[str, str]) -> Handler:
        """Make the handler from the process's `OUTBOX_…` settings (names without the prefix)."""
        ...

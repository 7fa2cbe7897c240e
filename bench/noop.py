"""A handler that does nothing, for benchmarks: what is left is what the engine costs."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from outbox.message import Message
from outbox.outcome import Delivered, Outcome


class Noop:
    """Delivers everything at once."""

    async def __aenter__(self) -> Self:
        """Need nothing."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave nothing."""

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Do nothing, successfully."""
        return Delivered()

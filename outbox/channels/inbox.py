"""The channel `inbox`: a row for the user, written in the recording transaction: exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from outbox.channels.captured import refused_test, said, sent_by
from outbox.channels.log import LogChannel
from outbox.channels.providers import chosen_provider
from outbox.channels.sink import SinkChannel
from outbox.message import Message
from outbox.outcome import Delivered, InboxRow, Outcome, Rejected


class InboxChannel:
    """Providers: `inbox` (the default), `log`, `sink`."""

    def __init__(self, settings: Mapping[str, str]) -> None:
        provider = chosen_provider(settings, "inbox", known={"inbox"})
        self._capture: LogChannel | SinkChannel | None = None
        if provider == "log":
            self._capture = LogChannel("inbox")
        elif provider == "sink":
            self._capture = SinkChannel("inbox")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    async def deliver(self, message: Message, *, timeout_s: float) -> Outcome:
        """Return the row as an effect. A message for nobody is rejected.

        A job's own `to` stands for the user where no `user_id` is given.
        """
        user_id = message.user_id or message.to
        if not user_id:
            return Rejected(code="recipient.no_address", reason="User has no inbox")
        if self._capture is not None:
            return await self._capture.deliver(message, timeout_s=timeout_s)
        if (refused := refused_test(message)) is not None:
            return refused
        row = InboxRow(
            user_id=user_id,
            subject=message.subject,
            body=said(message) if message.text is not None or message.html is not None else "",
            data_json=message.data_json.decode("utf-8", "replace"),
        )
        return Delivered(effects=(row,), sent=sent_by("inbox", message))

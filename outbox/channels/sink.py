"""The provider `sink`: keeps what it would have sent, for the demo, test keys and the sandbox."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import msgspec

from outbox.channels.captured import headers_json, recipient_of, said, sent_by
from outbox.channels.magic import play
from outbox.message import Message
from outbox.outcome import Delivered, Outcome, SinkRow


class SinkChannel:
    """Any channel, with nothing sent: the message becomes a row of the sink."""

    def __init__(self, channel: str) -> None:
        self.channel = channel

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
        """Return the row as an effect: the recorder writes it if the lease still holds.

        Magic recipients fail instead, or take their time (outbox.channels.magic).
        """
        failed = await play(self.channel, message)
        if failed is not None:
            return msgspec.structs.replace(failed, sent=sent_by("sink", message))
        row = SinkRow(
            channel=self.channel,
            recipient=recipient_of(message),
            subject=message.subject,
            body=said(message),
            headers_json=headers_json(message),
        )
        return Delivered(effects=(row,), sent=sent_by("sink", message))

"""The provider `log`: prints one line a message to stdout. For development.

The line holds addresses and content: it is not for production, and never a default.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Self

import msgspec

from outbox.channels.captured import recipient_of, said, sent_by
from outbox.message import Message
from outbox.outcome import Delivered, Outcome

BODY_CHARS_MAX = 4_000


class LogChannel:
    """Any channel, with nothing sent: the message becomes a line of JSON on stdout."""

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
        """Print it, cut to `BODY_CHARS_MAX`, and call it delivered."""
        line = {
            "event": "message",
            "channel": self.channel,
            "job_id": str(message.key),
            "tenant_id": message.tenant_id,
            "attempt": message.attempt,
            "template_code": message.template_code,
            "recipient": recipient_of(message),
            "subject": message.subject,
            "body": said(message)[:BODY_CHARS_MAX],
        }
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
        sys.stdout.flush()
        return Delivered(sent=sent_by("log", message))

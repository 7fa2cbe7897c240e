"""The channel `telegram`: a message of a bot to a chat."""

from __future__ import annotations

import re

import msgspec

from outbox.channels.api_channel import ApiChannel, Provider
from outbox.channels.api_client import ApiClient
from outbox.channels.captured import sent_by
from outbox.channels.make_provider import make_provider
from outbox.channels.provider_config import ProviderConfig
from outbox.message import Message
from outbox.outcome import Rejected

_CHAT = re.compile(r"-?[0-9]{1,19}\Z|@[A-Za-z][A-Za-z0-9_]{3,31}\Z")


class TelegramChannel(ApiChannel):
    """Settings: `TELEGRAM_URL`, `TELEGRAM_MARKDOWN`. Raises ConfigError."""

    channel = "telegram"
    setting = "OUTBOX_TELEGRAM_URL"

    def _make(self, config: ProviderConfig, client: ApiClient) -> Provider:
        return make_provider(config, client)

    def _prepared(self, message: Message) -> Message | Rejected:
        return prepared_chat_message(message)


def prepared_chat_message(message: Message) -> Message | Rejected:
    """Return the message with its chat, or why no bot could send it."""
    if not message.to:
        return Rejected(code="recipient.no_address", reason="User has no telegram chat")
    if not _CHAT.match(message.to):
        return Rejected(
            code="recipient.address",
            reason="The address is no chat: neither a number nor @name",
            sent=sent_by(None, message),
        )
    if not (message.text or "").strip() and not (message.html or "").strip():
        return Rejected(
            code="telegram.empty",
            reason="The message has neither text nor HTML",
            sent=sent_by(None, message),
        )
    return msgspec.structs.replace(message, headers={})

"""The channel `browser`: Web Push to a user's browsers, encrypted for each of them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from outbox.channels.api_channel import ApiChannel, Provider
from outbox.channels.api_client import ApiClient
from outbox.channels.captured import sent_by
from outbox.channels.guard_allow import AllowList, parse_allow
from outbox.channels.make_provider import make_provider
from outbox.channels.provider_config import ProviderConfig
from outbox.channels.push_content import CONTENT_BYTES_MAX, ContentRefused, push_data
from outbox.message import Message
from outbox.outcome import Rejected

OVERHEAD_BYTES = 103
"""What encryption adds: header, key, delimiter, tag (RFC 8188, RFC 8291)."""
PLAIN_BYTES_MAX = CONTENT_BYTES_MAX - OVERHEAD_BYTES


class BrowserChannel(ApiChannel):
    """Settings: `BROWSER_KEY`, `BROWSER_SUBJECT`; `WEBHOOK_ALLOW` opens intranets' push services.

    Raises ConfigError.
    """

    channel = "browser"
    setting = "OUTBOX_BROWSER_KEY"

    def _make(self, config: ProviderConfig, client: ApiClient) -> Provider:
        return make_provider(config, client)

    def _allowed(self, config: ProviderConfig | None, settings: Mapping[str, str]) -> AllowList:
        return parse_allow(settings.get("WEBHOOK_ALLOW", ""))

    def _prepared(self, message: Message) -> Message | Rejected:
        return prepared_web_push(message)


def prepared_web_push(message: Message) -> Message | Rejected:
    """Return the message with what the browser is told as its text, or why it can't be."""
    if not message.devices:
        reason = "User has no browser that takes messages"
        return Rejected(code="recipient.no_address", reason=reason)
    sent = sent_by(None, message)
    if message.text is None and message.html is not None:
        return Rejected(code="browser.html", reason="A push message has no HTML", sent=sent)
    try:
        content = web_push_content(message)
    except ContentRefused as error:
        return Rejected(code="browser.data", reason=str(error), sent=sent)
    if len(content) > PLAIN_BYTES_MAX:
        reason = f"The message takes {len(content)} bytes, where {PLAIN_BYTES_MAX} are allowed"
        return Rejected(code="browser.too_large", reason=reason, sent=sent)
    headers = {"content-type": "application/json"}
    return msgspec.structs.replace(message, text=content.decode(), html=None, headers=headers)


def web_push_content(message: Message) -> bytes:
    """Return the JSON that a service worker gets: title, body, data, job_id."""
    told: dict[str, object] = {"job_id": str(message.key), "data": push_data(message)}
    if message.subject is not None:
        told["title"] = message.subject
    if message.text is not None:
        told["body"] = message.text
    return msgspec.json.encode(told)

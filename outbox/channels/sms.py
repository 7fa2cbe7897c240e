"""The channel `sms`: a text to a phone number, through Twilio or any gateway with an HTTP API."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec
import phonenumbers

from outbox.channels.api_channel import ApiChannel, Provider
from outbox.channels.api_client import ApiClient
from outbox.channels.captured import sent_by
from outbox.channels.guard import Lookup
from outbox.channels.make_provider import make_provider
from outbox.channels.provider_config import ProviderConfig
from outbox.channels.sms_text import count_segments
from outbox.errors import ConfigError
from outbox.message import Message
from outbox.outcome import Rejected

SEGMENTS_MAX = 10
"""What carriers put together again, as a rule, and Twilio's 1,600 characters."""


class NumberRefused(ValueError):
    """No phone number that an SMS can go to. The text never repeats it."""


class SmsChannel(ApiChannel):
    """Settings: `SMS_URL`, `SMS_FROM`, `SMS_REGION`, `SMS_BODY`. Raises ConfigError."""

    channel = "sms"
    setting = "OUTBOX_SMS_URL"

    def __init__(self, settings: Mapping[str, str], *, lookup: Lookup | None = None) -> None:
        self._region = checked_region(settings.get("SMS_REGION"))
        super().__init__(settings, lookup=lookup)

    def _make(self, config: ProviderConfig, client: ApiClient) -> Provider:
        return make_provider(config, client)

    def _prepared(self, message: Message) -> Message | Rejected:
        return prepared_sms(message, message.phone_region or self._region)


def prepared_sms(message: Message, region: str | None) -> Message | Rejected:
    """Return the message with its number in E.164 and its count of SMS, or why it can't go."""
    if not message.to:
        return Rejected(code="recipient.no_address", reason="User has no phone")
    try:
        number = e164(message.to, region)
    except NumberRefused as error:
        sent = sent_by(None, message)
        return Rejected(code="recipient.address", reason=str(error), sent=sent)
    if not (message.text or "").strip():
        return Rejected(
            code="sms.empty", reason="The SMS has no text", sent=sent_by(None, message)
        )
    segments = count_segments(message.text or "")
    if segments.count > SEGMENTS_MAX:
        reason = f"The text takes {segments.count} SMS, where {SEGMENTS_MAX} are allowed"
        return Rejected(code="sms.too_long", reason=reason, sent=sent_by(None, message))
    shown = {"sms-encoding": segments.encoding, "sms-segments": str(segments.count)}
    # Its HTML, and headers that are meant for mail, are nothing that an SMS has.
    return msgspec.structs.replace(message, to=number, html=None, headers=shown)


def checked_region(region: str | None) -> str | None:
    """Return a region's code, such as KZ. Raises ConfigError."""
    if region is None:
        return None
    if region.upper() not in phonenumbers.SUPPORTED_REGIONS:
        raise ConfigError(f"OUTBOX_SMS_REGION is {region[:20]!r}, which is no region such as KZ")
    return region.upper()


@lru_cache(maxsize=4_096)
def e164(number: str, region: str | None) -> str:
    """Return a number as +77011234567. `region` is whose national form it may be in.

    Raises NumberRefused. Only lengths are checked, not whether a range is in use: networks open
    new ones faster than any list knows.
    """
    try:
        parsed = phonenumbers.parse(number, region)
    except phonenumbers.NumberParseException:
        hint = "" if region else ", or is in a national form where OUTBOX_SMS_REGION is not set"
        raise NumberRefused(f"The address is no phone number{hint}") from None
    if not phonenumbers.is_possible_number(parsed):
        raise NumberRefused("The address is no phone number that could exist")
    text: str = phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)
    return text
